//! How floors are measured and told: by Criterion, or quickly; each case with its processor time.

use std::time::Duration;

use criterion::{Criterion, Throughput};
use serde::Serialize;

/// Measurements of each case of a quick run; the cases of a group take turns, so that a disturbance
/// of the machine hits all of them.
const REPEATS: usize = 5;

/// How long one of them takes, about.
const REPEAT_TIME: Duration = Duration::from_millis(400);

/// What some rounds of work took until it was really finished.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cost {
    pub(crate) wall: Duration,
    /// Processor time of the side that is measured.
    pub(crate) cpu: Duration,
    /// Processor time of the database's own process, if it has one.
    pub(crate) backend_cpu: Option<Duration>,
}

/// One variant of a floor, as its line names it.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Case {
    pub(crate) floor: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) form: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sockets: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) coalesced: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) batch: Option<usize>,
    /// Rounds per second, with rests between them; none: one round after the other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) paced: Option<u32>,
    /// The row comes over a connection, and an answer goes back when it is durable.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) acked: bool,
    /// Bytes of one frame with its share of the header, or of the payload of one row.
    pub(crate) bytes: usize,
    /// Frames or rows of one round.
    #[serde(skip)]
    pub(crate) units: u64,
}

impl Case {
    fn id(&self) -> String {
        let parts = [
            self.form.map(str::to_owned),
            self.sockets.map(|count| format!("sockets={count}")),
            self.coalesced.map(|count| format!("coalesced={count}")),
            self.batch.map(|count| format!("batch={count}")),
            self.paced.map(|rate| format!("paced={rate}")),
            self.acked.then(|| "acked".to_owned()),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join("/")
    }

    /// True when each part of the name, as in `send/sockets=1000/coalesced=1`, is one of this case.
    /// Paced and acked cases are only meant by name.
    pub(crate) fn matches(&self, name: &str) -> bool {
        let full = format!("{}/{}", self.floor, self.id());
        let has = |part: &str| part.is_empty() || full.split('/').any(|own| own == part);
        let only_by_name = [(self.paced.is_some(), "paced="), (self.acked, "acked")];
        let is_meant = only_by_name.iter().all(|(special, word)| !special || name.contains(word));
        name.is_empty() || name.split('/').all(has) && is_meant
    }
}

/// What does the work of a group's cases.
pub(crate) trait Floor {
    fn run(&mut self, case: &Case, rounds: u64) -> Cost;
}

/// Cases that share a set-up, which is made when the first of them is run.
pub(crate) struct Group {
    pub(crate) cases: Vec<Case>,
    pub(crate) open: Box<dyn Fn() -> Box<dyn Floor>>,
}

/// All measurements of one case.
pub(crate) struct Measured {
    case: Case,
    samples: Vec<(u64, Cost)>,
}

/// Runs every case that is wanted some times for a short while.
pub(crate) fn quickly(groups: Vec<Group>, wanted: impl Fn(&Case) -> bool) -> Vec<Measured> {
    let mut all = Vec::new();
    for mut group in groups {
        group.cases.retain(&wanted);
        if group.cases.is_empty() {
            continue;
        }
        let mut floor = (group.open)();
        let mut cases: Vec<(u64, Measured)> = Vec::new();
        for case in group.cases {
            let rounds = rounds_of_a_repeat(&mut *floor, &case);
            cases.push((rounds, Measured { case, samples: Vec::new() }));
        }
        for _ in 0..REPEATS {
            for (rounds, measured) in &mut cases {
                let cost = floor.run(&measured.case, *rounds);
                measured.samples.push((*rounds, cost));
            }
        }
        all.extend(cases.into_iter().map(|(_, measured)| measured));
    }
    all
}

/// How many rounds take [`REPEAT_TIME`]; finding out warms the case up.
fn rounds_of_a_repeat(floor: &mut dyn Floor, case: &Case) -> u64 {
    let mut rounds = 1;
    loop {
        let wall = floor.run(case, rounds).wall;
        if wall >= REPEAT_TIME / 10 {
            let per_round = wall.as_secs_f64() / rounds as f64;
            return ((REPEAT_TIME.as_secs_f64() / per_round) as u64).max(1);
        }
        rounds *= 4;
    }
}

/// Runs what Criterion's arguments ask for.
pub(crate) fn with_criterion(groups: Vec<Group>) -> Vec<Measured> {
    let mut criterion = Criterion::default().configure_from_args();
    let mut all = Vec::new();
    for group in groups {
        let mut floor: Option<Box<dyn Floor>> = None;
        let mut benches = criterion.benchmark_group(format!("floor/{}", group.cases[0].floor));
        benches.sample_size(10).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
        for case in &group.cases {
            benches.throughput(Throughput::Elements(case.units));
            let mut samples = Vec::new();
            benches.bench_function(case.id(), |bencher| {
                bencher.iter_custom(|rounds| {
                    let floor = floor.get_or_insert_with(|| (group.open)());
                    let cost = floor.run(case, rounds);
                    samples.push((rounds, cost));
                    cost.wall
                });
            });
            if !samples.is_empty() {
                all.push(Measured { case: *case, samples });
            }
        }
        benches.finish();
    }
    criterion.final_summary();
    all
}

/// A floor as the line at the end tells it; times are microseconds per frame or row.
#[derive(Serialize)]
struct Line {
    #[serde(flatten)]
    case: Case,
    /// Median over the repeats.
    cpu_us: f64,
    cpu_us_min: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    backend_cpu_us: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backend_cpu_us_min: Option<f64>,
    wall_us: f64,
    wall_us_min: f64,
    /// Frames or rows, by the median.
    per_second: f64,
    repeats: usize,
}

impl Line {
    fn new(Measured { case, samples }: &Measured) -> Self {
        let spread = |part: &dyn Fn(&Cost) -> Duration| {
            let per_unit = |(rounds, cost): &(u64, Cost)| {
                part(cost).as_secs_f64() * 1e6 / (*rounds as f64 * case.units as f64)
            };
            spread(samples.iter().map(per_unit).collect())
        };
        let (cpu_us_min, cpu_us) = spread(&|cost| cost.cpu);
        let (wall_us_min, wall_us) = spread(&|cost| cost.wall);
        let has_backend = samples.iter().all(|(_, cost)| cost.backend_cpu.is_some());
        let backend = has_backend.then(|| spread(&|cost| cost.backend_cpu.unwrap_or_default()));
        Self {
            case: *case,
            cpu_us: round(cpu_us),
            cpu_us_min: round(cpu_us_min),
            backend_cpu_us: backend.map(|(_, median)| round(median)),
            backend_cpu_us_min: backend.map(|(min, _)| round(min)),
            wall_us: round(wall_us),
            wall_us_min: round(wall_us_min),
            per_second: (1e6 / wall_us).round(),
            repeats: samples.len(),
        }
    }
}

/// The smallest value and the median.
fn spread(mut values: Vec<f64>) -> (f64, f64) {
    values.sort_by(f64::total_cmp);
    (values[0], (values[(values.len() - 1) / 2] + values[values.len() / 2]) / 2.0)
}

/// Nanoseconds are enough.
fn round(microseconds: f64) -> f64 {
    (microseconds * 1000.0).round() / 1000.0
}

/// A table for people on standard error, then a line of JSON per floor on standard output.
#[allow(clippy::print_stdout, reason = "this is what the program is for")]
pub(crate) fn print(all: &[Measured]) {
    let lines: Vec<Line> = all.iter().map(Line::new).collect();
    if !lines.is_empty() {
        let heads = ["cpu us", "min", "wall us", "min"].map(|head| format!("{head:>10}")).concat();
        eprintln!("\n{:<40}{heads}{:>12}", "floor, per frame or row", "per second");
    }
    for line in &lines {
        let name = format!("{}/{}", line.case.floor, line.case.id());
        let times = [line.cpu_us, line.cpu_us_min, line.wall_us, line.wall_us_min];
        let times = times.map(|time| format!("{time:>10.3}")).concat();
        eprintln!("{name:<40}{times}{:>12}", line.per_second);
    }
    for line in &lines {
        println!("{}", serde_json::to_string(line).unwrap());
    }
}
