//! `roomcast bench`: runs what the command line asks for, with a bar while it runs and a report at the end.

use std::fs;
use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::error::BenchError;
use crate::html;
use crate::options::{self, BenchArgs};
use crate::plan::{Plan, SCENARIOS};
use crate::report::Report;
use crate::run::{Progress, Subject};

/// What a command prints, and whether all was as it should be.
#[derive(Debug)]
pub struct Output {
    /// For standard output.
    pub text: String,
    /// Why the program should fail although there is a report.
    pub fault: Option<&'static str>,
}

/// Runs the command until there is something to print, or `stopping` is set.
///
/// # Errors
/// When options are invalid, the report cannot be written, and those of [`run`](crate::run::run()).
pub fn run(args: &BenchArgs, stopping: &AtomicBool) -> Result<Output, BenchError> {
    if args.list {
        return Ok(Output { text: list(), fault: None });
    }
    let (name, plan) = options::plan(args)?;
    let bar = bar(&plan);
    let total = plan.connections();
    let whole = plan.warmup + plan.duration;
    let outcome = crate::run::run(&name, plan, &subject(args)?, |progress| {
        show(&bar, progress, total, whole);
        !stopping.load(Ordering::Relaxed)
    });
    bar.finish_and_clear();
    let report = outcome?;
    if let Some(path) = &args.report {
        fs::write(path, html::page(&report))
            .map_err(|error| BenchError::new(format!("{} cannot be written: {error}", path.display())))?;
    }
    let text = if args.json { json(&report)? } else { report.to_string() };
    let fault = report.fault();
    Ok(Output { text, fault })
}

fn json(report: &Report) -> Result<String, BenchError> {
    let text = serde_json::to_string(report).map_err(|error| BenchError::new(error.to_string()))?;
    Ok(text + "\n")
}

fn list() -> String {
    SCENARIOS.iter().map(|scenario| format!("{:<15} {}\n", scenario.name, scenario.what)).collect()
}

fn subject(args: &BenchArgs) -> Result<Subject, BenchError> {
    if !args.spawn {
        return Ok(Subject::Running(args.server_pid));
    }
    let program = std::env::current_exe().map_err(|error| {
        BenchError::new(format!("the path of this program cannot be determined: {error}"))
    })?;
    let extra = match &args.config {
        Some(config) => vec!["--config".to_owned(), config.display().to_string()],
        None => Vec::new(),
    };
    Ok(Subject::Spawn { program, database: args.database.clone(), extra })
}

fn bar(plan: &Plan) -> ProgressBar {
    let target = if std::io::stderr().is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let bar = ProgressBar::with_draw_target(Some(plan.connections() as u64), target);
    match ProgressStyle::with_template("{bar:30} {msg}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn show(bar: &ProgressBar, progress: Progress, connections: usize, whole: Duration) {
    match progress {
        Progress::Connecting(ready) => {
            bar.set_length(connections as u64);
            bar.set_position(ready as u64);
            bar.set_message(format!("{ready} of {connections} connections"));
        }
        Progress::Running(elapsed, published, delivered) => {
            bar.set_length(whole.as_millis() as u64);
            bar.set_position(elapsed.as_millis() as u64);
            bar.set_message(format!("{published} published, {delivered} delivered"));
        }
        Progress::Draining(left) => bar.set_message(format!("waiting for {left} deliveries")),
    }
}
