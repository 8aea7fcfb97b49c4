//! The files sink in real directories.

use crate::material::{class, heatmap, published, small_heatmap};
use salientd::config::{FileKind, FileSinkConfig, FileWhen, OverlayConfig};
use salientd::heatmap::Heatmap;
use salientd::sink::files::FileSink;
use salientd::sink::{Sink, npy};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const ALL: [FileKind; 5] = [
    FileKind::OverlayPng,
    FileKind::OverlayJpeg,
    FileKind::HeatmapPng,
    FileKind::Npy,
    FileKind::Jsonl,
];

fn config(dir: &Path, write: &[FileKind]) -> FileSinkConfig {
    let when = FileWhen::EveryFrame;
    FileSinkConfig { dir: dir.into(), write: write.into(), when, ..FileSinkConfig::default() }
}

fn open(config: &FileSinkConfig) -> FileSink {
    FileSink::open(config, &OverlayConfig::default(), None).unwrap()
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn bytes_in(dir: &Path) -> u64 {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
}

#[test]
fn every_kind_holds_what_was_published() {
    let dir = tempfile::tempdir().unwrap();
    let mut sink = open(&config(dir.path(), &ALL));
    let sent = heatmap(0);
    sink.publish(&published(sent.clone())).unwrap();
    sink.publish(&published(heatmap(1))).unwrap();
    sink.finish().unwrap();
    let first = "20261123T121617.000042Z_0000000000";
    let second = "20261123T121618.000042Z_0000000001";
    let kinds = ["heatmap.png", "heatmaps.jsonl", "maps.npy", "overlay.jpg", "overlay.png"];
    let mut expected: Vec<String> = kinds.iter().map(|kind| format!("{first}_{kind}")).collect();
    expected.extend(
        ["heatmap.png", "maps.npy", "overlay.jpg", "overlay.png"]
            .map(|kind| format!("{second}_{kind}")),
    );
    assert_eq!(names(dir.path()), expected);

    let read = |kind: &str| fs::read(dir.path().join(format!("{first}_{kind}"))).unwrap();
    let array = npy::from_bytes::<f32>(&read("maps.npy")).unwrap();
    assert_eq!((array.shape, array.values), (vec![149, 149, 1], sent.values));
    let size = |kind| {
        let picture = image::load_from_memory(&read(kind)).unwrap();
        (picture.width(), picture.height())
    };
    assert_eq!([size("overlay.png"), size("overlay.jpg")], [(1280, 720); 2]);
    assert_eq!(size("heatmap.png"), (149, 149));
    let lines = String::from_utf8(read("heatmaps.jsonl")).unwrap();
    let lines: Vec<serde_json::Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[1]["sequence"], 1);
    assert_eq!(lines[0]["classes"][0]["label"], "English springer");
    assert_eq!(lines[0]["files"][0], format!("{first}_overlay.png"));
    let stats = sink.stats();
    assert_eq!((stats.written(), stats.failed(), stats.kept_files()), (2, 0, 9));
    assert_eq!(stats.kept_bytes(), bytes_in(dir.path()));
}

#[test]
fn heatmaps_are_written_when_they_are_due() {
    let start = Instant::now();
    // Time in ms and best class of each heatmap, and which of them are written.
    let heatmaps = [(0, 1), (400, 1), (999, 2), (1000, 2), (1500, 1), (2100, 1)];
    let cases = [
        (FileWhen::EveryFrame, vec![0, 1, 2, 3, 4, 5]),
        (FileWhen::Interval, vec![0, 3, 5]),
        (FileWhen::ClassChange, vec![0, 2, 4]),
    ];
    for (when, expected) in cases {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path(), &[FileKind::Npy]);
        let mut sink = open(&FileSinkConfig { when, every_s: 1.0, ..config });
        for (sequence, (ms, index)) in heatmaps.into_iter().enumerate() {
            let captured_at = start + Duration::from_millis(ms);
            let classes = vec![class(index, "x", 0.5)];
            let heatmap = Heatmap { captured_at, classes, ..small_heatmap(sequence as u64) };
            sink.publish(&published(heatmap)).unwrap();
        }
        let written: Vec<u64> =
            names(dir.path()).iter().map(|name| name[24..34].parse().unwrap()).collect();
        assert_eq!(written, expected, "{when:?}");
    }
}

#[test]
fn the_oldest_go_when_there_are_too_many() {
    let dir = tempfile::tempdir().unwrap();
    let limits =
        FileSinkConfig { max_files: 5, ..config(dir.path(), &[FileKind::Npy, FileKind::Jsonl]) };
    let foreign = ["holiday.npy", "20261123T121617.000042Z_0000000000_maps.npy.bak"];
    foreign.iter().for_each(|name| fs::write(dir.path().join(name), "mine").unwrap());
    let ours = |dir: &Path| {
        let mut names = names(dir);
        names.retain(|name| !foreign.contains(&name.as_str()));
        names
    };
    let mut sink = open(&limits);
    for sequence in 0..20 {
        sink.publish(&published(small_heatmap(sequence))).unwrap();
        assert!(ours(dir.path()).len() <= 5);
    }
    // The file of lines goes on, though it is named after the first of them.
    let kept = ours(dir.path());
    assert!(kept[0].ends_with("0000000000_heatmaps.jsonl"), "{kept:?}");
    assert!(kept[1].ends_with("0000000016_maps.npy"), "{kept:?}");
    assert_eq!(fs::read_to_string(dir.path().join(&kept[0])).unwrap().lines().count(), 20);
    drop(sink);

    // The next run counts what is there, and lives within smaller limits at once.
    let sink = open(&FileSinkConfig { max_files: 2, ..limits });
    assert_eq!(sink.stats().kept_files(), 2);
    let kept = ours(dir.path());
    assert!(kept[0].ends_with("0000000018_maps.npy") && kept.len() == 2, "{kept:?}");
    assert!(foreign.iter().all(|name| dir.path().join(name).exists()));
}

#[test]
fn the_oldest_go_when_they_are_too_large() {
    let dir = tempfile::tempdir().unwrap();
    let limits =
        FileSinkConfig { max_mib: 1, ..config(dir.path(), &[FileKind::Npy, FileKind::Jsonl]) };
    let mut sink = open(&limits);
    for sequence in 0..40 {
        sink.publish(&published(heatmap(sequence))).unwrap();
        assert!(bytes_in(dir.path()) <= 1 << 20);
        assert_eq!(sink.stats().kept_bytes(), bytes_in(dir.path()));
    }
    let kept = names(dir.path());
    assert!(kept.len() > 8 && kept.last().unwrap().ends_with("0000000039_maps.npy"), "{kept:?}");

    let huge = Heatmap { height: 600, width: 600, values: vec![0.5; 360_000], ..heatmap(99) };
    let error = sink.publish(&published(huge)).unwrap_err().to_string();
    let told = "1 file(s) of 1440128 bytes do not fit into max_files = 10000 and max_mib = 1";
    assert_eq!(error, format!("make room in {}: {told}", dir.path().display()));
}

#[test]
fn lines_of_another_day_go_into_another_file() {
    let dir = tempfile::tempdir().unwrap();
    let mut sink = open(&config(dir.path(), &[FileKind::Jsonl]));
    for hours in [0, 11, 12, 13] {
        sink.publish(&published(small_heatmap(hours * 3600))).unwrap();
    }
    let lines: Vec<usize> = names(dir.path())
        .iter()
        .map(|name| fs::read_to_string(dir.path().join(name)).unwrap().lines().count())
        .collect();
    assert_eq!(lines, [2, 2]);
}

#[test]
fn a_clock_set_back_does_not_make_new_files_the_oldest() {
    let dir = tempfile::tempdir().unwrap();
    let mut sink = open(&FileSinkConfig { max_files: 3, ..config(dir.path(), &[FileKind::Npy]) });
    for sequence in [5000, 5001, 5002, 1000, 1001] {
        sink.publish(&published(small_heatmap(sequence))).unwrap();
    }
    let kept: Vec<u64> =
        names(dir.path()).iter().map(|name| name[24..34].parse().unwrap()).collect();
    assert_eq!(kept, [1000, 1001, 5002]);
}

#[test]
fn what_a_killed_run_left_half_written_is_cleared_away() {
    let dir = tempfile::tempdir().unwrap();
    let partial = ".20261123T121617.000042Z_0000000000_maps.npy.4711.part";
    for name in [partial, ".holiday.npy.4711.part"] {
        fs::write(dir.path().join(name), "half").unwrap();
    }
    let _sink = open(&config(dir.path(), &[FileKind::Npy]));
    assert_eq!(names(dir.path()), [".holiday.npy.4711.part"]);
}

#[test]
fn a_listing_never_shows_a_file_in_part() {
    let dir = tempfile::tempdir().unwrap();
    let limits = FileSinkConfig { max_files: 40, ..config(dir.path(), &[FileKind::Npy]) };
    let mut sink = open(&limits);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            (0..150).for_each(|sequence| sink.publish(&published(heatmap(sequence))).unwrap());
        });
        let mut seen = 0;
        while !writer.is_finished() {
            for name in names(dir.path()).iter().filter(|name| !name.starts_with('.')) {
                // It may have been removed as the oldest since.
                let Ok(bytes) = fs::read(dir.path().join(name)) else { continue };
                assert_eq!(bytes.len(), 128 + 149 * 149 * 4, "{name}");
                seen += 1;
            }
        }
        assert!(seen > 100, "only {seen} files were looked at");
    });
}

#[test]
fn a_directory_that_cannot_be_used_is_an_error_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let inside = file.join("maps");
    let sink = FileSink::open(&config(&inside, &ALL), &OverlayConfig::default(), None);
    let error = sink.err().unwrap();
    assert_eq!(
        error.to_string(),
        format!(
            "sink.files: {}: cannot create the directory: Not a directory (os error 20); \
             set sink.files.dir to a directory that this user may write in",
            inside.display()
        )
    );
}

/// A mounted file system of 256 KiB; gone when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=256k", "salientd-test"])
            .arg(dir.path())
            .output();
        let why = match &mounted {
            Ok(output) if output.status.success() => return Self(dir),
            Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
            Err(error) => error.to_string(),
        };
        panic!(
            "this test fills a small tmpfs, for which `mount` must be installed and run as root \
             (or under `unshare --map-root-user --mount`): {why}"
        );
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_is_told_once_and_leaves_nothing_in_part() {
    let disk = SmallDisk::mount();
    let dir = disk.0.path();
    let ballast = dir.join("ballast");
    fs::write(&ballast, vec![0; 150 << 10]).unwrap();
    let mut sink = open(&config(dir, &[FileKind::Npy, FileKind::Jsonl]));
    let stats = sink.stats();
    let publish = |sink: &mut FileSink, sequence| sink.publish(&published(heatmap(sequence)));
    publish(&mut sink, 0).unwrap();
    let before = names(dir);
    let error = publish(&mut sink, 1).unwrap_err().to_string();
    assert!(
        error.starts_with("write ")
            && error.ends_with("_maps.npy: No space left on device (os error 28)"),
        "{error}"
    );
    for sequence in 2..10 {
        publish(&mut sink, sequence).unwrap();
        assert_eq!(names(dir), before);
    }
    assert_eq!((stats.written(), stats.failed()), (1, 9));
    fs::remove_file(&ballast).unwrap();
    publish(&mut sink, 10).unwrap();
    assert_eq!((stats.written(), stats.failed()), (2, 9));
    // Filled again, it is told again.
    fs::write(&ballast, vec![0; 60 << 10]).unwrap();
    publish(&mut sink, 11).unwrap_err();
    for name in names(dir).iter().filter(|name| name.ends_with(".npy")) {
        npy::from_bytes::<f32>(&fs::read(dir.join(name)).unwrap()).unwrap();
    }
}

#[test]
fn a_line_that_does_not_fit_on_the_disk_leaves_nothing_of_it() {
    let disk = SmallDisk::mount();
    let dir = disk.0.path();
    let mut sink = open(&config(dir, &[FileKind::Jsonl]));
    let publish = |sink: &mut FileSink| {
        (0..2000).find_map(|sequence| sink.publish(&published(small_heatmap(sequence))).err())
    };
    let error = publish(&mut sink).expect("256 KiB never filled").to_string();
    assert!(error.ends_with("_heatmaps.jsonl: No space left on device (os error 28)"), "{error}");
    for name in names(dir) {
        let text = fs::read_to_string(dir.join(name)).unwrap();
        assert!(text.ends_with('\n'));
        text.lines()
            .for_each(|line| drop(serde_json::from_str::<serde_json::Value>(line).unwrap()));
    }
}

#[test]
fn a_directory_that_was_removed_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let sub = dir.path().join("maps");
    let mut sink = open(&config(&sub, &[FileKind::Npy, FileKind::Jsonl]));
    sink.publish(&published(small_heatmap(0))).unwrap();
    fs::remove_dir_all(&sub).unwrap();
    sink.publish(&published(small_heatmap(1))).unwrap();
    assert_eq!(names(&sub).len(), 2, "{:?}", names(&sub));
    // Not where something else has taken its place.
    fs::remove_dir_all(&sub).unwrap();
    fs::write(&sub, "a file").unwrap();
    sink.publish(&published(small_heatmap(2))).unwrap_err();
    assert_eq!(fs::read(&sub).unwrap(), b"a file");
}
