//! One run from the first connection to the report: starts the threads, leads them through the phases, and
//! puts together what they counted.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use crate::control::{Control, Phase, Storm};
use crate::error::BenchError;
use crate::plan::{Group, Plan};
use crate::report::{GroupReport, Percentiles, Report, Second, StormReport};
use crate::samples::{Measured, Sample};
use crate::spawned::Spawned;
use crate::storm;
use crate::tally::{self, Tally};
use crate::threads;

/// Time without any progress after which waiting is given up.
const PATIENCE: Duration = Duration::from_secs(10);

/// Which server is measured.
#[derive(Debug, Clone)]
pub enum Subject {
    /// One that runs; with its process id, if it runs on this machine and shall be looked at.
    Running(Option<u32>),
    /// One that is started for the run and stopped after it.
    Spawn {
        /// The program, which knows the command `serve`.
        program: PathBuf,
        /// Its database; `None`: a SQLite file that goes with the run.
        database: Option<String>,
        /// More arguments of `serve`.
        extra: Vec<String>,
    },
}

/// What a run tells while it runs.
#[derive(Debug, Clone, Copy)]
pub enum Progress {
    /// So many of the connections are ready.
    Connecting(usize),
    /// So much of warm-up and measured time is over; publishes and arrivals so far.
    Running(Duration, u64, u64),
    /// Waiting for so many arrivals.
    Draining(u64),
}

/// Runs a plan. `progress` is called several times a second; when it returns false the run ends without a
/// report.
///
/// # Errors
/// When the server cannot be reached, the connections do not all become ready, the system has not
/// enough files for them, or the run was ended.
pub fn run(
    name: &str,
    mut plan: Plan,
    subject: &Subject,
    progress: impl FnMut(Progress) -> bool,
) -> Result<Report, BenchError> {
    check_files(plan.connections())?;
    let spawned = match subject {
        Subject::Running(_) => None,
        Subject::Spawn { program, database, extra } => {
            Some(Spawned::start(program, database.as_deref(), extra)?)
        }
    };
    if let Some(spawned) = &spawned {
        plan.address = spawned.address;
        plan.host = spawned.address.to_string();
    }
    let pid = match subject {
        Subject::Running(pid) => *pid,
        Subject::Spawn { .. } => spawned.as_ref().map(Spawned::pid),
    };
    let run = Run { plan: Arc::new(plan), control: Arc::new(Control::new()), pid, progress, timeline: None };
    run.go(name)
}

fn check_files(connections: usize) -> Result<(), BenchError> {
    let needed = connections as u64 + 100;
    let files = rlimit::increase_nofile_limit(u64::MAX)?;
    if files < needed {
        return Err(BenchError::new(format!(
            "{connections} connections need {needed} open files, and the limit is {files}; raise it (ulimit -Hn) or use fewer connections"
        )));
    }
    Ok(())
}

struct Run<P> {
    plan: Arc<Plan>,
    control: Arc<Control>,
    pid: Option<u32>,
    progress: P,
    /// Of the measured time, once it has begun.
    timeline: Option<Timeline>,
}

/// Counts of every whole second.
#[derive(Debug)]
struct Timeline {
    next: Instant,
    /// Publishes and arrivals until the last whole second.
    counts: (u64, u64),
    seconds: Vec<Second>,
}

impl<P: FnMut(Progress) -> bool> Run<P> {
    fn go(mut self, name: &str) -> Result<Report, BenchError> {
        let before = Sample::take(self.pid);
        if let (Some(pid), None) = (self.pid, before.server) {
            return Err(BenchError::new(format!(
                "process {pid} cannot be inspected: it does not exist, or this system has no /proc"
            )));
        }
        let threads = threads::start(&self.plan, &self.control)?;
        let outcome = self.measure();
        self.control.enter(Phase::Stop);
        let mut tally = Tally::new(&self.plan);
        for thread in threads {
            let part =
                thread.join().map_err(|_| BenchError::new("a thread of the load generator panicked"))?;
            tally.merge(part?);
        }
        let measured = outcome.map_err(|error| match &tally.breakage {
            Some(breakage) => BenchError::new(format!("{error}; the first error: {breakage}")),
            None => error,
        })?;
        Ok(self.report(name, &before, &measured, tally))
    }

    fn measure(&mut self) -> Result<Measured, BenchError> {
        let ramp = self.await_ready()?;
        let settled = Instant::now() + self.plan.settle;
        while Instant::now() < settled {
            thread::sleep(Duration::from_millis(20));
            self.tell(Progress::Connecting(self.control.ready.load(Ordering::Acquire)))?;
        }
        let connected = Sample::take(self.pid);
        self.control.begin(self.plan.warmup, self.plan.duration);
        let begun = Instant::now();
        self.wait_until(begun, begun + self.plan.warmup)?;
        let first = Sample::take(self.pid);
        let next = begun + self.plan.warmup + Duration::from_secs(1);
        self.timeline = Some(Timeline { next, counts: self.counts(), seconds: Vec::new() });
        let storm = match self.plan.disconnect_for {
            Some(away) => Some(self.storm(begun, away)?),
            None => None,
        };
        self.wait_until(begun, begun + self.plan.warmup + self.plan.duration)?;
        let last = Sample::take(self.pid);
        let timeline = self.timeline.take().map(|timeline| timeline.seconds).unwrap_or_default();
        self.control.enter(Phase::Drain);
        self.drain()?;
        Ok(Measured { ramp, connected, first, last, timeline, storm })
    }

    /// Cuts all listeners off for a while, and waits until they are back.
    fn storm(&mut self, begun: Instant, away: Duration) -> Result<StormReport, BenchError> {
        self.wait_until(begun, begun + self.plan.warmup + self.plan.duration / 4)?;
        self.control.enter_storm(Storm::Disconnected);
        self.wait_until(begun, Instant::now() + away)?;
        let pages_before = storm::pages_read(self.plan.address);
        let missing = self.plan.connections() - self.control.ready.load(Ordering::Acquire);
        self.control.enter_storm(Storm::Returning);
        let back = self.await_ready()?;
        let pages = storm::pages_read(self.plan.address);
        Ok(StormReport {
            connections: missing,
            away_seconds: away.as_secs_f64(),
            back_seconds: back.as_secs_f64(),
            pages_read: pages.zip(pages_before).map(|(after, before)| after.saturating_sub(before)),
        })
    }

    /// Lets connections be made at the planned pace, and waits until all are ready; how long that took.
    fn await_ready(&mut self) -> Result<Duration, BenchError> {
        let (all, begun) = (self.plan.connections(), Instant::now());
        let (mut ready, mut moved) = (0, Instant::now());
        while ready < all {
            let allowed = (begun.elapsed().as_secs_f64() * self.plan.ramp) as usize;
            let allowed = allowed.saturating_add(1);
            self.control.allowed.fetch_max(allowed, Ordering::AcqRel);
            thread::sleep(Duration::from_millis(5));
            let now = self.control.ready.load(Ordering::Acquire);
            if now > ready {
                (ready, moved) = (now, Instant::now());
            }
            self.tick();
            self.tell(Progress::Connecting(ready))?;
            let broken = self.control.broken.load(Ordering::Acquire);
            if broken > 0 || moved.elapsed() > PATIENCE {
                return Err(BenchError::new(format!("only {ready} of {all} connections became ready")));
            }
        }
        Ok(begun.elapsed())
    }

    fn wait_until(&mut self, begun: Instant, end: Instant) -> Result<(), BenchError> {
        while Instant::now() < end {
            let tick = self.timeline.as_ref().map_or(end, |timeline| timeline.next);
            let wake = end.min(tick).saturating_duration_since(Instant::now());
            thread::sleep(wake.min(Duration::from_millis(200)));
            self.tick();
            let (published, delivered) = self.counts();
            self.tell(Progress::Running(begun.elapsed(), published, delivered))?;
        }
        Ok(())
    }

    /// Ends the second of the timeline that is over.
    fn tick(&mut self) {
        let now = self.counts();
        let Some(timeline) = &mut self.timeline else { return };
        while Instant::now() >= timeline.next {
            let (published, delivered) = timeline.counts;
            timeline.seconds.push(Second { published: now.0 - published, delivered: now.1 - delivered });
            timeline.counts = now;
            timeline.next += Duration::from_secs(1);
        }
    }

    fn tell(&mut self, progress: Progress) -> Result<(), BenchError> {
        if (self.progress)(progress) { Ok(()) } else { Err(BenchError::new("the run was interrupted")) }
    }

    /// Waits for what is under way, for as long as some of it arrives.
    fn drain(&mut self) -> Result<(), BenchError> {
        let (mut arrived, mut moved) = (0, Instant::now());
        while !self.control.is_drained() && moved.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(20));
            let now = self.control.arrived.load(Ordering::Acquire)
                + self.control.acknowledged.load(Ordering::Acquire);
            if now > arrived {
                (arrived, moved) = (now, Instant::now());
            }
            let owed = self.control.expected.load(Ordering::Acquire);
            let left = owed.saturating_sub(self.counts().1);
            self.tell(Progress::Draining(left))?;
        }
        Ok(())
    }

    fn counts(&self) -> (u64, u64) {
        (self.control.acknowledged.load(Ordering::Acquire), self.control.arrived.load(Ordering::Acquire))
    }

    fn report(&self, name: &str, before: &Sample, measured: &Measured, tally: Tally) -> Report {
        let seconds = (measured.last.at - measured.first.at).as_secs_f64();
        let own_cpu = measured.last.own.cpu.saturating_sub(measured.first.own.cpu);
        let sum = |count: fn(&tally::GroupTally) -> u64| tally.groups.iter().map(count).sum::<u64>();
        let published = sum(|group| group.acknowledged_in_time);
        let delivered = sum(|group| group.delivered_in_time + group.recovered);
        let server = measured.server(before, self.plan.connections(), published, delivered);
        let groups = self.plan.groups.iter().zip(tally.groups);
        Report {
            version: env!("CARGO_PKG_VERSION"),
            scenario: name.to_owned(),
            dialect: self.plan.dialect,
            address: self.plan.address.to_string(),
            connections: self.control.ready.load(Ordering::Acquire),
            broken: tally.broken,
            breakage: tally.breakage,
            seconds,
            ramp_seconds: measured.ramp.as_secs_f64(),
            groups: groups.map(|(plan, tally)| describe(plan, &tally, self.plan.duration)).collect(),
            server,
            own_cpu: own_cpu.as_secs_f64() / seconds,
            own_busiest: tally.busiest,
            read_late_seconds: tally.read_late_ns as f64 / 1e9,
            own_threads: self.plan.listening_threads() + usize::from(self.plan.is_paced()),
            storm: measured.storm,
            timeline: measured.timeline.clone(),
        }
    }
}

fn describe(plan: &Group, tally: &tally::GroupTally, measured: Duration) -> GroupReport {
    let per_second = |count: u64| count as f64 / measured.as_secs_f64();
    GroupReport {
        plan: plan.clone(),
        published: tally.published,
        published_per_second: per_second(tally.acknowledged_in_time),
        delivered: tally.delivered,
        delivered_per_second: per_second(tally.delivered_in_time),
        recovered: tally.recovered,
        unanswered: tally.unanswered,
        refused: tally.refused,
        limited: tally.limited,
        refusal: tally.refusal.clone(),
        lost: tally.rooms.iter().map(tally::RoomTally::lost).fold(0, u64::saturating_add),
        repeated: tally.repeated + tally.rooms.iter().map(tally::RoomTally::surplus).sum::<u64>(),
        out_of_order: tally.out_of_order,
        ack: Percentiles::of(&tally.ack.0),
        delivery: Percentiles::of(&tally.delivery.0),
        last_delivery: Percentiles::of(&tally.last_delivery(|room| plan.listeners_of(room)).0),
    }
}
