//! SQLite on a file system whose calls hang, as those of a dying disk or of a snapshot that is being taken.
//!
//! Nothing ends such a call, so whoever has made it waits; this is about all the others.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::support::in_time::in_time;
use crate::support::server::TestServer;
use crate::support::{TempDir, eventually};

const TEMPORARY: &str = r#"{"error":{"code":100,"message":"internal server error","temporary":true}}"#;

/// A file system in a file; it can be frozen.
struct Disk(TempDir);

impl Disk {
    fn mount() -> Self {
        let disk = Self(TempDir::new());
        let image = disk.0.0.join("image");
        std::fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
        std::fs::create_dir(disk.path()).unwrap();
        let made = Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image).status();
        let mounted = Command::new("mount").args(["-o", "loop"]).arg(&image).arg(disk.path()).status();
        let succeeded = |status: std::io::Result<std::process::ExitStatus>| status.is_ok_and(|s| s.success());
        assert!(
            succeeded(made) && succeeded(mounted),
            "this test mounts and freezes a file system of its own: install e2fsprogs and util-linux, and run it as \
             root with loop devices and the right to mount (docker run --privileged)"
        );
        disk
    }

    fn path(&self) -> std::path::PathBuf {
        self.0.0.join("disk")
    }

    fn freeze(&self) -> Frozen {
        let status = Command::new("fsfreeze").arg("-f").arg(self.path()).status();
        assert!(status.is_ok_and(|status| status.success()), "it can be frozen");
        let mut thaw = Command::new("sh");
        thaw.args(["-c", THAW, "thaw"]).arg(self.path()).current_dir("/");
        Frozen(thaw.stdin(Stdio::piped()).spawn().unwrap())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

/// Thaws the disk as soon as its standard input ends, which it does when the test ends, also by a signal to its whole
/// group: what hangs could not even be killed.
const THAW: &str = r#"trap "" HUP INT TERM; read -r words; fsfreeze -u "$1""#;

/// Thaws the disk when it is dropped.
struct Frozen(Child);

impl Drop for Frozen {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

fn url(folder: &Path) -> String {
    format!("sqlite:{}", folder.join("chat.db").display())
}

#[test]
fn a_frozen_file_system_holds_up_nobody_who_publishes() {
    let disk = Disk::mount();
    let server = TestServer::at(url(&disk.path()), TempDir::new(), "");
    let (mut ann, mut bob, mut eve) = (server.connect("ann"), server.connect("bob"), server.connect("eve"));
    bob.join("room");
    ann.publish_numbers("room", 1..=3);
    bob.expect_numbers(1..=3);
    eve.join("typing:room");

    let frozen = disk.freeze();
    let publish = |number: u64| format!(r#"{{"publish":{{"channel":"room","data":{number}}}}}"#);
    assert_eq!(in_time(|| ann.ask(&publish(4))), TEMPORARY, "its thread hangs, and it is told");
    for _ in 0..2 {
        assert_eq!(in_time(|| eve.ask(&publish(9))), TEMPORARY);
        let api = in_time(|| server.api("publish", r#"{"channel":"room","data":9}"#));
        assert!(api.starts_with(r#"{"error":{"code":100,"#), "{api}");
        let contact = r#"{"rpc":{"method":"contacts.add","data":{"user":"bob"}}}"#;
        assert_eq!(in_time(|| eve.ask(contact)), TEMPORARY);
        assert_eq!(in_time(|| server.get("/health")).status, 503);
    }
    in_time(|| {
        ann.publish("typing:room", "1");
        eve.next_push()
    });
    assert_eq!(in_time(|| server.get("/metrics")).status, 200);
    in_time(|| server.connect("late"));
    assert_eq!(bob.waiting_pushes(), 0);
    drop(frozen);

    eventually("health says so", || server.get("/health").status == 200);
    bob.expect_numbers(4..=4);
    ann.publish_numbers("room", 5..=6);
    bob.expect_numbers(5..=6);
    let history = ann.ask(r#"{"history":{"channel":"room","limit":99}}"#);
    assert_eq!(history.matches(r#""offset":"#).count(), 7, "each number once, and the position: {history}");
    drop(server);
}
