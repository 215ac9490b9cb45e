//! The load generator against the real server, and others: what it counts is what happened. Judges no times.

#![allow(clippy::unwrap_used)]

mod liar;
mod nats;
mod plain;
mod rooms;
mod socketio;

use std::fs;
use std::net::SocketAddr;
use std::process::{Command, Output, Stdio};
use std::thread;

use serde_json::Value;

const FAULTS: [&str; 5] = ["lost", "repeated", "out_of_order", "refused", "unanswered"];

fn bench(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_roomcast"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ROOMCAST_") {
            command.env_remove(name);
        }
    }
    command.arg("bench");
    if !arguments.contains(&"--duration") {
        command.args(["--duration", "1s"]);
    }
    command.args(["--warmup", "300ms"]).args(arguments);
    command
}

#[track_caller]
fn report_of(arguments: &[&str]) -> Value {
    let output = bench(&[arguments, &["--spawn", "--json"]].concat());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}"))
}

#[track_caller]
fn assert_clean(report: &Value) {
    for group in report["groups"].as_array().unwrap() {
        for fault in FAULTS {
            assert_eq!(group[fault], 0, "{fault}: {group}");
        }
        let plan = &group["plan"];
        let listeners_of_a_room = plan["listeners"].as_u64().unwrap() / plan["rooms"].as_u64().unwrap();
        let published = group["published"].as_u64().unwrap();
        assert!(published > 0, "{group}");
        assert_eq!(group["delivered"].as_u64().unwrap(), published * listeners_of_a_room);
        assert_eq!(group["ack"]["count"].as_u64().unwrap(), published);
        let reached_all = if listeners_of_a_room > 0 { published } else { 0 };
        assert_eq!(group["last_delivery"]["count"].as_u64().unwrap(), reached_all);
    }
    assert_eq!(report["broken"], 0);
}

#[test]
fn a_rate_is_kept_and_every_message_reaches_every_listener() {
    let report = report_of(&["--connections", "60", "--rooms", "6", "--publishers", "3", "--rate", "300"]);
    assert_clean(&report);
    // A second at 300 messages/s: what is due in it, whatever the machine is busy with.
    assert_eq!(report["groups"][0]["published"], 300);
    assert_eq!(report["connections"], 63);
    assert!(report["server"]["resident"].as_u64().unwrap() > 0);
}

#[test]
fn scenarios_run_with_windows_and_several_threads() {
    assert_clean(&report_of(&["--scenario", "pipeline", "--connections", "40", "--threads", "2"]));
    assert_clean(&report_of(&["--scenario", "publish", "--publishers", "8", "--size", "1000"]));
    assert_clean(&report_of(&["--scenario", "quiet"]));
}

#[test]
fn listeners_that_are_cut_off_come_back_and_miss_nothing() {
    let shape = ["--connections", "60", "--rooms", "6", "--rate", "120", "--away", "300ms"];
    let report = report_of(&[&["--scenario", "storm"], &shape[..]].concat());
    let group = &report["groups"][0];
    for fault in FAULTS {
        assert_eq!(group[fault], 0, "{fault}: {group}");
    }
    assert_eq!((&report["broken"], &group["published"]), (&Value::from(0), &Value::from(120)));
    let storm = &report["storm"];
    assert_eq!(storm["connections"], 60);
    assert!(storm["pages_read"].is_u64(), "{storm}");
    let (live, recovered) = (group["delivered"].as_u64().unwrap(), group["recovered"].as_u64().unwrap());
    assert!(live < 1200 && recovered > 0, "what was missed does not come live: {group}");
}

#[test]
fn lost_and_repeated_messages_fail_the_run() {
    let liar = liar::start();
    let url = format!("ws://{}/", liar.address);
    let output = bench(&[&url, "--connections", "3", "--rate", "40", "--json"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("messages or connections failed; see the report"), "{said}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let group = &report["groups"][0];
    assert_eq!((&group["published"], &group["unanswered"]), (&Value::from(39), &Value::from(1)));
    assert_eq!(group["delivered"], 3 * 40 - 3);
    assert!(group["ack"]["max"].as_u64().unwrap() > 9_000_000, "nobody waited for it: {group}");
    assert!(liar.pongs() > 100);
    for fault in ["lost", "repeated", "out_of_order"] {
        assert_eq!(group[fault], 3, "one for each listener: {fault} of {report}");
    }
}

#[test]
fn publishers_that_listen_are_members_like_the_others() {
    let shape = ["--connections", "12", "--rooms", "3", "--publishers", "6", "--publishers-listen"];
    for pace in [["--rate", "120"], ["--window", "2"]] {
        let report = report_of(&[&shape[..], &pace].concat());
        assert_clean(&report);
        assert_eq!(report["connections"], 12);
    }
}

/// Starts a server that speaks this dialect; `None` for our own, which the other tests run, and for unknown ones.
fn start_server_of(dialect: &str) -> Option<SocketAddr> {
    match dialect {
        "plain" => Some(plain::start(plain::Kind::Reliable)),
        "nchan" => Some(plain::start(plain::Kind::Nchan)),
        "nats" => Some(nats::start()),
        "socketio" => Some(socketio::start()),
        _ => None,
    }
}

#[track_caller]
fn assert_measured_like_our_own(dialect: &str) {
    let url = start_server_of(dialect).unwrap().to_string();
    let shape = [&url, "--dialect", dialect, "--connections", "12", "--rooms", "3", "--publishers", "6"];
    for pace in [["--rate", "120"], ["--window", "2"]] {
        let output = bench(&[&shape[..], &pace, &["--settle", "0s", "--json"]].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_clean(&report);
        assert_eq!((&report["dialect"], &report["connections"]), (&dialect.into(), &12.into()));
    }
}

#[test]
fn a_bare_chat_room_is_measured_like_our_own() {
    assert_measured_like_our_own("plain");
}

#[test]
fn nchan_is_measured_like_our_own() {
    assert_measured_like_our_own("nchan");
}

#[test]
fn nats_is_measured_like_our_own() {
    assert_measured_like_our_own("nats");
}

#[test]
fn socketio_is_measured_like_our_own() {
    assert_measured_like_our_own("socketio");
}

#[test]
fn there_is_no_dialect_without_a_server_here() {
    let unknown = bench(&["--dialect", "unknown"]);
    let said = String::from_utf8(unknown.stderr).unwrap();
    let (_, rest) = said.split_once("[possible values: ").unwrap_or_else(|| panic!("{said}"));
    let dialects: Vec<&str> = rest.split(']').next().unwrap().split(", ").collect();
    assert!(dialects.len() > 1 && dialects.contains(&"centrifuge"), "{said}");
    for dialect in dialects.into_iter().filter(|dialect| *dialect != "centrifuge") {
        assert!(start_server_of(dialect).is_some(), "no test here runs {dialect}");
    }
}

#[test]
fn a_bare_chat_room_that_loses_messages_is_found_out() {
    let url = plain::start(plain::Kind::Unreliable).to_string();
    let output = bench(&[&url, "--dialect", "plain", "--connections", "3", "--rate", "40", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let group = &report["groups"][0];
    // One message for each of three listeners, and another for one of them.
    for (fault, count) in [("lost", 4), ("repeated", 3), ("out_of_order", 0), ("refused", 0)] {
        assert_eq!(group[fault], count, "{fault}: {group}");
    }
    // The publisher may be the one from whom a message was withheld.
    assert!([1, 2].contains(&group["unanswered"].as_u64().unwrap()), "{group}");
}

#[test]
#[cfg(target_os = "linux")]
fn a_run_that_is_ended_leaves_no_server_behind() {
    let mut run = command(&["--spawn", "--duration", "60s"]).stderr(Stdio::piped()).spawn().unwrap();
    let children = format!("/proc/{0}/task/{0}/children", run.id());
    let server = loop {
        assert!(run.try_wait().unwrap().is_none(), "it ended by itself");
        let started = fs::read_to_string(&children).unwrap();
        if let Some(server) = started.split_whitespace().next() {
            break format!("/proc/{server}");
        }
        thread::yield_now();
    };
    let pid = rustix::process::Pid::from_raw(run.id() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let output = run.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("the run was interrupted"));
    assert!(!fs::exists(server).unwrap());
}

#[test]
fn the_table_and_the_page_show_the_same() {
    let page = std::env::temp_dir().join(format!("roomcast-bench-{}.html", std::process::id()));
    let path = page.to_str().unwrap();
    let output = bench(&["--spawn", "--connections", "10", "--rate", "50", "--report", path]);
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{table}");
    for words in
        ["published", "lost                     0", "last delivery", "us per delivery", "load generator"]
    {
        assert!(table.contains(words), "{words:?} is not in\n{table}");
    }
    let html = fs::read_to_string(&page).unwrap();
    fs::remove_file(&page).unwrap();
    assert!(html.contains("<svg") && html.contains("<polyline"), "{html}");
    assert!(html.contains(table.lines().next().unwrap()), "the page begins with the table");
}

#[test]
fn a_run_that_cannot_start_says_why() {
    let nobody = bench(&["127.0.0.1:1"]);
    let said = String::from_utf8(nobody.stderr).unwrap();
    assert_eq!(nobody.status.code(), Some(1));
    assert!(said.contains("only 0 of") && said.contains("the first error: "), "{said}");
    let too_many = bench(&["--connections", "100000000"]);
    let said = String::from_utf8(too_many.stderr).unwrap();
    assert!(said.contains("need 100000101 open files") && said.contains("ulimit"), "{said}");
}

#[test]
fn a_server_that_limits_its_clients_is_told() {
    let folder = std::env::temp_dir().join(format!("roomcast-bench-limits-{}", std::process::id()));
    fs::create_dir(&folder).unwrap();
    let config = folder.join("roomcast.toml");
    fs::write(&config, "[client]\ninsecure = true\n[limits]\nuser_publishes_per_second_max = 1\n").unwrap();
    let config = config.display().to_string();
    let options = ["--spawn", "--config", &config, "--connections", "2", "--rate", "100"];
    let (table, json) = (bench(&options), bench(&[&options[..], &["--json"]].concat()));
    fs::remove_dir_all(&folder).unwrap();
    let said = String::from_utf8_lossy(&table.stderr);
    assert_eq!(table.status.code(), Some(1), "{said}");
    assert!(said.contains("error 111"), "{said}");
    let text = String::from_utf8_lossy(&table.stdout);
    for words in ["the first error: ", "too many requests", "limited ", "user_publishes_per_second_max"] {
        assert!(text.contains(words), "{words} is missing: {text}");
    }
    let report: Value = serde_json::from_slice(&json.stdout).unwrap();
    let group = &report["groups"][0];
    assert!(group["limited"].as_u64().unwrap() > 50 && group["limited"] == group["refused"], "{group}");
    assert!(String::from_utf8_lossy(&bench(&["--help"]).stdout).contains("error 111"));
}
