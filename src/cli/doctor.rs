//! `salientd doctor`: what this machine offers, and what stands in the way.

use super::args::{DoctorArgs, load_or_default};
use crate::camera::{self, CameraInfo};
use crate::config::Config;
use crate::explain::Explainer;
use crate::frame::Picture;
use crate::health::thermal::{self, Zone};
use crate::model::Model;
use rustix::fs::{Access, access};
use serde::Serialize;
use std::fmt;
use std::fs;
use std::io::{Write, stdout};
use std::path::Path;
use std::sync::Arc;

/// Everything found; the JSON of `--json` has these names.
#[derive(Debug, Serialize)]
pub struct Report {
    pub cameras: Vec<CameraFacts>,
    pub processor: Processor,
    pub memory: Memory,
    pub frequency: Vec<FrequencyPolicy>,
    pub temperature: Vec<Zone>,
    pub rights: Vec<Right>,
    /// What a frame is expected to take with the configured model; absent: not known.
    pub latency: Option<String>,
}

/// One camera, in words.
#[derive(Clone, Debug, Serialize)]
pub struct CameraFacts {
    /// The path to configure, such as `/dev/v4l/by-id/…`.
    pub device: String,
    pub name: String,
    /// Such as `MJPG 1280x720 30 fps`, one for each format and size.
    pub formats: Vec<String>,
    /// Why nothing more is known, such as a missing permission.
    pub problem: Option<String>,
}

#[derive(Debug, Serialize)]
pub struct Processor {
    pub architecture: &'static str,
    /// As the kernel names it; empty where it does not.
    pub model: String,
    /// Usable by this process.
    pub cores: usize,
    /// Instructions for int8 and whether they are there, best first.
    pub features: Vec<Feature>,
}

/// An instruction set extension, by the name that /proc/cpuinfo uses.
#[derive(Debug, Serialize)]
pub struct Feature {
    pub name: &'static str,
    pub present: bool,
}

#[derive(Debug, Default, Serialize)]
pub struct Memory {
    pub total_mib: u64,
    pub available_mib: u64,
}

/// How a group of cores is clocked (Documentation/admin-guide/pm/cpufreq.rst).
#[derive(Debug, Serialize)]
pub struct FrequencyPolicy {
    pub policy: String,
    pub governor: String,
    pub max_mhz: Option<u64>,
}

/// Something the daemon must be allowed to do.
#[derive(Debug, Serialize)]
pub struct Right {
    pub what: String,
    pub ok: bool,
    /// What to do about it; empty where all is well.
    pub advice: String,
}

pub fn run(args: &DoctorArgs) -> anyhow::Result<()> {
    let config = load_or_default(args.config.as_deref())?;
    let cameras = camera::list().into_iter().map(facts).collect();
    let report = examine(&config, cameras, Some(latency(&config)));
    let text =
        if args.json { serde_json::to_string_pretty(&report)? + "\n" } else { report.to_string() };
    stdout().write_all(text.as_bytes())?;
    Ok(())
}

fn facts(info: CameraInfo) -> CameraFacts {
    let name = match info.serial {
        Some(serial) => format!("{} (serial {serial}, {})", info.card, info.bus),
        None => format!("{} ({})", info.card, info.bus),
    };
    let sizes = info.formats.iter().filter(|f| f.readable).flat_map(|f| {
        f.sizes.iter().map(move |s| {
            let most = s.rates.iter().map(|r| r.fastest).fold(0.0, f64::max);
            format!("{} {}x{} {most:.0} fps", f.code, s.size.width[1], s.size.height[1])
        })
    });
    CameraFacts {
        device: info.path.display().to_string(),
        name,
        formats: sizes.collect(),
        problem: info.problem,
    }
}

/// What a frame of the configured model and views takes here, measured on one.
fn latency(config: &Config) -> String {
    let measured = || -> anyhow::Result<String> {
        let model = Arc::new(Model::configured(&config.model)?);
        let mut explainer = Explainer::new(model.clone(), config)?;
        let [height, width] = explainer.size();
        let grey = Picture { width, height, rgb: vec![127; height * width * 3] };
        explainer.explain(&grey)?;
        let explained = explainer.explain(&grey)?;
        Ok(format!(
            "{:.0} ms for the {} configured views of {} at {height}x{width} on {} threads",
            explained.spent_ms,
            explained.views.len(),
            model.name,
            explainer.threads()
        ))
    };
    measured().unwrap_or_else(|error| super::told(&error))
}

/// Looks at the machine; cameras and the expected latency are found by those who know.
pub fn examine(config: &Config, cameras: Vec<CameraFacts>, latency: Option<String>) -> Report {
    let (proc, sys) = (Path::new("/proc"), Path::new("/sys"));
    Report {
        cameras,
        processor: processor(proc),
        memory: memory(proc),
        frequency: frequency(sys),
        temperature: thermal::zones(sys),
        rights: rights(config, Path::new("/etc/group")),
        latency,
    }
}

fn processor(proc: &Path) -> Processor {
    let cpuinfo = fs::read_to_string(proc.join("cpuinfo")).unwrap_or_default();
    // "model name" on x86, "Model" for the whole board on ARM.
    let model = ["model name", "Model"].iter().find_map(|wanted| {
        cpuinfo.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            (name.trim() == *wanted).then(|| value.trim().to_string())
        })
    });
    Processor {
        architecture: std::env::consts::ARCH,
        model: model.unwrap_or_default(),
        cores: std::thread::available_parallelism().map_or(1, |n| n.get()),
        features: int8_features().map(|(name, present)| Feature { name, present }).into(),
    }
}

#[cfg(target_arch = "x86_64")]
fn int8_features() -> [(&'static str, bool); 3] {
    use std::arch::is_x86_feature_detected as has;
    [("avx512_vnni", has!("avx512vnni")), ("avx_vnni", has!("avxvnni")), ("avx2", has!("avx2"))]
}

#[cfg(target_arch = "aarch64")]
fn int8_features() -> [(&'static str, bool); 3] {
    use std::arch::is_aarch64_feature_detected as has;
    [("i8mm", has!("i8mm")), ("asimddp", has!("dotprod")), ("asimd", has!("neon"))]
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn int8_features() -> [(&'static str, bool); 0] {
    []
}

fn memory(proc: &Path) -> Memory {
    let meminfo = fs::read_to_string(proc.join("meminfo")).unwrap_or_default();
    // "MemTotal:  3884392 kB"; the kernel's kB are KiB.
    let mib = |wanted: &str| {
        let line = meminfo.lines().find_map(|l| l.strip_prefix(wanted)?.strip_prefix(':'));
        line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) / 1024
    };
    Memory { total_mib: mib("MemTotal"), available_mib: mib("MemAvailable") }
}

fn frequency(sys: &Path) -> Vec<FrequencyPolicy> {
    let policies = fs::read_dir(sys.join("devices/system/cpu/cpufreq"));
    let mut found: Vec<_> = policies
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let policy = entry.file_name().into_string().ok()?;
            let read = |name: &str| fs::read_to_string(entry.path().join(name)).ok();
            let governor = read("scaling_governor")?.trim().to_string();
            let khz = read("scaling_max_freq").and_then(|t| t.trim().parse::<u64>().ok());
            Some(FrequencyPolicy { policy, governor, max_mhz: khz.map(|k| k / 1000) })
        })
        .collect();
    found.sort_by(|a, b| (a.policy.len(), &a.policy).cmp(&(b.policy.len(), &b.policy)));
    found
}

fn rights(config: &Config, groups: &Path) -> Vec<Right> {
    let mut rights = vec![video_group(&fs::read_to_string(groups).unwrap_or_default())];
    if let Some(socket) = &config.sink.socket {
        rights.extend(socket.path.parent().map(|dir| writable("the socket's folder", dir)));
    }
    if let Some(files) = &config.sink.files {
        rights.push(writable("the folder for files", &files.dir));
    }
    rights
}

/// Camera nodes belong to group `video` on Debian and its kin.
fn video_group(groups: &str) -> Right {
    let gid = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some("video")).then(|| fields.nth(1)?.parse::<u32>().ok())?
    });
    let mine: Vec<u32> = rustix::process::getgroups()
        .unwrap_or_default()
        .into_iter()
        .chain([rustix::process::getegid()])
        .map(|g| g.as_raw())
        .collect();
    let ok = rustix::process::geteuid().is_root() || gid.is_some_and(|g| mine.contains(&g));
    let advice = match (ok, gid) {
        (true, _) => "",
        (false, Some(_)) => "add yourself with: sudo adduser $USER video, and log in again",
        (false, None) => "there is no group video here; see who owns the camera: ls -l /dev/video*",
    };
    Right { what: "open cameras, as this user (group video)".into(), ok, advice: advice.into() }
}

fn writable(what: &str, dir: &Path) -> Right {
    let result = access(dir, Access::WRITE_OK | Access::EXEC_OK);
    let advice = match result {
        Ok(()) => String::new(),
        Err(rustix::io::Errno::NOENT) => {
            let dir = dir.display();
            format!("not there; the service makes it at its start; else: sudo mkdir -p {dir}")
        }
        Err(e) => format!("{e}; the service has folders of its own; else choose another"),
    };
    let what = format!("write to {what}, as this user: {}", dir.display());
    Right { what, ok: result.is_ok(), advice }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cpu = &self.processor;
        let model = if cpu.model.is_empty() { "unknown" } else { &cpu.model };
        writeln!(f, "processor    {model} ({}), {} cores", cpu.architecture, cpu.cores)?;
        let word = |yes| if yes { "yes" } else { "no" };
        let features: Vec<_> =
            cpu.features.iter().map(|i| format!("{} {}", i.name, word(i.present))).collect();
        writeln!(f, "int8         {}", or_none(features.join(", ")))?;
        let memory = &self.memory;
        writeln!(f, "memory       {} MiB, {} free", memory.total_mib, memory.available_mib)?;
        for policy in &self.frequency {
            let max = policy.max_mhz.map_or(String::new(), |mhz| format!(", up to {mhz} MHz"));
            writeln!(f, "frequency    {}: {}{max}", policy.policy, policy.governor)?;
        }
        let zones: Vec<_> =
            self.temperature.iter().map(|z| format!("{} {:.1} °C", z.kind, z.celsius)).collect();
        writeln!(f, "temperature  {}", or_none(zones.join(", ")))?;
        for camera in &self.cameras {
            let what = camera.problem.as_ref().unwrap_or(&camera.name);
            writeln!(f, "camera       {}: {what}", camera.device)?;
            for format in &camera.formats {
                writeln!(f, "             {format}")?;
            }
        }
        if self.cameras.is_empty() {
            writeln!(f, "camera       none found")?;
        }
        for right in &self.rights {
            let advice = if right.ok { String::new() } else { format!(": {}", right.advice) };
            writeln!(f, "may          {}  {}{advice}", word(right.ok), right.what)?;
        }
        writeln!(f, "latency      {}", self.latency.as_deref().unwrap_or("not measured"))
    }
}

fn or_none(text: String) -> String {
    if text.is_empty() { "none found".into() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree of files as a Raspberry Pi 4 shows them.
    fn board() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in [
            ("cpuinfo", "processor\t: 0\nModel\t\t: Raspberry Pi 4 Model B Rev 1.4\n"),
            (
                "meminfo",
                "MemTotal:        3884392 kB\nMemFree: 1 kB\nMemAvailable:    2048000 kB\n",
            ),
            ("devices/system/cpu/cpufreq/policy10/scaling_governor", "performance\n"),
            ("devices/system/cpu/cpufreq/policy0/scaling_governor", "ondemand\n"),
            ("devices/system/cpu/cpufreq/policy0/scaling_max_freq", "1500000\n"),
        ] {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn reads_what_the_kernel_shows() {
        let root = board();
        let root = root.path();
        assert_eq!(processor(root).model, "Raspberry Pi 4 Model B Rev 1.4");
        let memory = memory(root);
        assert_eq!((memory.total_mib, memory.available_mib), (3793, 2000));
        let policies: Vec<_> =
            frequency(root).into_iter().map(|p| (p.policy, p.governor, p.max_mhz)).collect();
        let expected = [
            ("policy0".into(), "ondemand".into(), Some(1500)),
            ("policy10".into(), "performance".into(), None),
        ];
        assert_eq!(policies, expected);
    }

    #[test]
    fn an_empty_machine_is_described_too() {
        let nowhere = Path::new("/nonexistent");
        assert_eq!(processor(nowhere).model, "");
        assert_eq!(memory(nowhere).total_mib, 0);
        assert!(frequency(nowhere).is_empty());
    }

    #[test]
    fn folders() {
        let dir = tempfile::tempdir().unwrap();
        assert!(writable("x", dir.path()).ok);
        let path = dir.path().join("missing");
        let missing = writable("x", &path);
        assert!(!missing.ok);
        let make = format!("sudo mkdir -p {}", path.display());
        let expected = format!("not there; the service makes it at its start; else: {make}");
        assert_eq!(missing.advice, expected);
    }

    #[test]
    fn the_page_for_people() {
        let report = Report {
            cameras: vec![
                CameraFacts {
                    device: "/dev/video0".into(),
                    name: "HD Webcam".into(),
                    formats: vec!["MJPG 1280x720 30 fps".into()],
                    problem: None,
                },
                CameraFacts {
                    device: "/dev/video2".into(),
                    name: String::new(),
                    formats: Vec::new(),
                    problem: Some("Permission denied".into()),
                },
            ],
            processor: Processor {
                architecture: "aarch64",
                model: "Pi".into(),
                cores: 4,
                features: vec![
                    Feature { name: "asimddp", present: true },
                    Feature { name: "i8mm", present: false },
                ],
            },
            memory: Memory { total_mib: 3793, available_mib: 2000 },
            frequency: Vec::new(),
            temperature: vec![Zone {
                zone: "thermal_zone0".into(),
                kind: "cpu-thermal".into(),
                celsius: 48.312,
            }],
            rights: vec![Right { what: "fly".into(), ok: false, advice: "grow wings".into() }],
            latency: None,
        };
        let expected = "\
processor    Pi (aarch64), 4 cores
int8         asimddp yes, i8mm no
memory       3793 MiB, 2000 free
temperature  cpu-thermal 48.3 °C
camera       /dev/video0: HD Webcam
             MJPG 1280x720 30 fps
camera       /dev/video2: Permission denied
may          no  fly: grow wings
latency      not measured
";
        assert_eq!(report.to_string(), expected);
    }
}
