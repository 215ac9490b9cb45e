//! `roomcast bench`: the load generator, which is a package of its own.

use roomcast_bench::{BenchError, command};

pub(super) use roomcast_bench::BenchArgs;

use super::failure::Failure;
use super::signals::stop_flag;

/// Runs the command until the report is printed.
pub(super) fn run(args: &BenchArgs) -> Result<(), Failure> {
    let output = command::run(args, &*stop_flag()?)?;
    super::output::print(&output.text)?;
    output.fault.map_or(Ok(()), |fault| Err(Failure::new(fault)))
}

impl From<BenchError> for Failure {
    fn from(error: BenchError) -> Self {
        Self::new(error.to_string())
    }
}
