//! A long run: what 10,000 frames leave in memory.

mod common;

use common::parity;
use common::process::{Client, Daemon};
use salientd::sink::wire::Header;

const MIB: i64 = 1 << 20;

/// Resident memory of a process, in bytes.
fn rss_bytes(pid: u32) -> i64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<i64>().unwrap() * 1024
}

/// Counted are heatmaps that came out at the client: the camera paints more frames than
/// that, and those that a newer one overtook are not in the count.
#[test]
fn ten_thousand_frames_take_no_more_memory_than_a_hundred() {
    let dir = tempfile::tempdir().unwrap();
    let (socket, out) = (dir.path().join("s"), dir.path().join("out"));
    let config = format!(
        "[camera]\nsource = \"pattern\"\n\
         [camera.pattern]\nwidth = 64\nheight = 48\nfps = 1000.0\n\
         [model]\npath = {:?}\nsize = [32, 32]\nthreads = 1\n\
         [tta]\nscales = [1.0]\nhflip = false\n\
         [sink.socket]\npath = {socket:?}\n\
         [sink.files]\ndir = {out:?}\nwhen = \"interval\"\nevery_s = 0.1\nmax_files = 40\n\
         write = [\"overlay-jpeg\", \"npy\", \"jsonl\"]\n",
        parity("model.onnx"),
    );
    let daemon = Daemon::start(dir.path(), &config, &[]);
    daemon.wait_told("READY=1");
    let mut client = Client::connect(&socket);
    let mut after = |heatmaps: usize| {
        let mut came = 0;
        while came < heatmaps {
            let message = client.next().expect("the daemon goes on");
            came += usize::from(matches!(message.header, Header::Heatmap(_)));
        }
        rss_bytes(daemon.pid())
    };
    let early = after(100);
    let late = after(9_900);
    let log = daemon.stopped();
    eprintln!(
        "RSS {:.2} MiB after 100 frames, {:.2} MiB after 10,000; {}",
        early as f64 / MIB as f64,
        late as f64 / MIB as f64,
        log.lines().last().unwrap_or_default()
    );
    assert!(late - early <= 2 * MIB, "{early} bytes after 100 frames, {late} after 10,000");
}
