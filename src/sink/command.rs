//! Commands that rules run. One at a time, without a shell, killed with all that they
//! started when they take too long, and told about the event by environment variables;
//! docs/zones.md lists these.

use super::{CameraState, Published, Sink, SinkError};
use crate::config::RuleConfig;
use crate::rules::Event;
use crate::sink::wire::EventHeader;
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use rustix::process::{Pid, Signal, kill_process_group};
use std::collections::HashMap;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Events that wait for the command before theirs.
const QUEUE: usize = 16;
/// Between two looks at a running command.
const LOOK_AROUND: Duration = Duration::from_millis(20);
/// What commands get once the daemon stops, all together.
const FINISH_WITHIN: Duration = Duration::from_secs(1);

/// Runs the commands of rules.
pub struct CommandSink {
    commands: HashMap<String, Task>,
    /// None once finished.
    queue: Option<Sender<(Task, EventHeader)>>,
    closing: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// A rule's command.
#[derive(Clone)]
struct Task {
    command: Vec<String>,
    timeout: Duration,
}

impl CommandSink {
    /// `None` where no rule has a command.
    pub fn open(rules: &[RuleConfig]) -> Result<Option<Self>, SinkError> {
        let with_command = rules.iter().filter(|rule| !rule.command.is_empty());
        let commands: HashMap<_, _> = with_command
            .map(|rule| {
                let timeout = Duration::try_from_secs_f64(rule.command_timeout_s);
                let timeout = timeout.unwrap_or(Duration::from_secs(600));
                (rule.name.clone(), Task { command: rule.command.clone(), timeout })
            })
            .collect();
        if commands.is_empty() {
            return Ok(None);
        }
        let (queue, waiting) = bounded(QUEUE);
        let closing = Arc::<AtomicBool>::default();
        let for_thread = closing.clone();
        let thread = std::thread::Builder::new()
            .name("commands".into())
            .spawn(move || run_all(&waiting, &for_thread))
            .map_err(|e| SinkError::Open(format!("rules.command: cannot start a thread: {e}")))?;
        Ok(Some(Self { commands, queue: Some(queue), closing, thread: Some(thread) }))
    }
}

impl Sink for CommandSink {
    fn name(&self) -> &'static str {
        "command"
    }

    fn publish(&mut self, _: &Published) -> Result<(), SinkError> {
        Ok(())
    }

    fn camera(&mut self, _: &CameraState) -> Result<(), SinkError> {
        Ok(())
    }

    fn event(&mut self, event: &Event) -> Result<(), SinkError> {
        let task = self.commands.get(&*event.rule);
        let Some((task, queue)) = task.zip(self.queue.as_ref()) else { return Ok(()) };
        match queue.try_send((task.clone(), EventHeader::from(event))) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(_)) => Err(SinkError::Busy(format!(
                "rule {}: its command does not run, {QUEUE} others wait already",
                event.rule
            ))),
            Err(TrySendError::Disconnected(_)) => {
                Err(SinkError::Busy("the thread that runs commands is gone".into()))
            }
        }
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        self.closing.store(true, Relaxed);
        self.queue = None;
        let Some(thread) = self.thread.take() else { return Ok(()) };
        thread.join().map_err(|_| SinkError::Busy("the thread that ran commands panicked".into()))
    }
}

impl Drop for CommandSink {
    fn drop(&mut self) {
        // Only a sink that was never finished has anything left to end.
        let _ = self.finish();
    }
}

fn run_all(waiting: &Receiver<(Task, EventHeader)>, closing: &AtomicBool) {
    let mut patience = Patience { closing, until: None };
    for (task, event) in waiting {
        if patience.is_over() {
            log::warn!("rule {}: its command does not run, the daemon stops", event.rule);
            continue;
        }
        match run(&task, &event, &mut patience) {
            Ok(status) if status.success() => log::debug!("rule {}: command done", event.rule),
            Ok(status) => log::warn!("rule {}: {}: {status}", event.rule, task.command[0]),
            Err(why) => log::warn!("rule {}: {}: {why}", event.rule, task.command[0]),
        }
    }
}

/// How long commands may still go on once the daemon stops.
struct Patience<'a> {
    closing: &'a AtomicBool,
    until: Option<Instant>,
}

impl Patience<'_> {
    fn is_over(&mut self) -> bool {
        if self.until.is_none() && self.closing.load(Relaxed) {
            self.until = Some(Instant::now() + FINISH_WITHIN);
        }
        self.until.is_some_and(|until| Instant::now() >= until)
    }
}

fn run(task: &Task, event: &EventHeader, patience: &mut Patience) -> Result<ExitStatus, String> {
    let Some((program, arguments)) = task.command.split_first() else {
        return Err("no program is named".into());
    };
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(std::env::vars_os().filter(|(name, _)| name == "PATH"))
        .envs(environment(event))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        // A group of its own, so that what it starts ends with it.
        .process_group(0)
        .spawn()
        .map_err(|e| format!("cannot be started: {e}"))?;
    let began = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status),
            Ok(None) => {}
            Err(e) => return Err(format!("cannot be waited for: {e}")),
        }
        if began.elapsed() >= task.timeout || patience.is_over() {
            kill(&mut child);
            let s = began.elapsed().as_secs_f64();
            return Err(format!("killed after {s:.1} s"));
        }
        std::thread::sleep(LOOK_AROUND);
    }
}

fn kill(child: &mut Child) {
    // Its group has its number, as it was made with it.
    if let Err(errno) = kill_process_group(Pid::from_child(child), Signal::KILL) {
        log::warn!("cannot kill a command: {errno}");
        let _ = child.kill();
    }
    let _ = child.wait();
}

fn environment(event: &EventHeader) -> Vec<(&'static str, String)> {
    let class = event.class.as_ref();
    vec![
        ("SALIENTD_CHANGE", event.change.as_str().into()),
        ("SALIENTD_RULE", event.rule.clone()),
        ("SALIENTD_ZONE", event.zone.clone()),
        ("SALIENTD_SIDE", event.side.as_str().into()),
        ("SALIENTD_CLASS", class.map_or(String::new(), |c| c.label.replace('\0', ""))),
        ("SALIENTD_CLASS_INDEX", class.map_or(String::new(), |c| c.index.to_string())),
        ("SALIENTD_SHARE", event.share.map_or(String::new(), |share| share.to_string())),
        ("SALIENTD_SEQUENCE", event.sequence.to_string()),
        ("SALIENTD_CAPTURED", event.captured.clone()),
        ("SALIENTD_MODEL_SHA256", event.model_sha256.clone()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Side;
    use crate::rules::Change;
    use std::path::Path;
    use std::time::UNIX_EPOCH;

    fn event(rule: &str, change: Change) -> Event {
        Event {
            change,
            rule: rule.into(),
            zone: "gate".into(),
            side: Side::Outside,
            class: Some((3, "golf ball; rm -rf $HOME".into())),
            share: Some(0.75),
            sequence: 42,
            captured_wall: UNIX_EPOCH,
            model_sha256: "ab".into(),
        }
    }

    fn sink(rules: &[(&str, &str, f64)]) -> CommandSink {
        let rule = |&(name, script, command_timeout_s): &(&str, &str, f64)| RuleConfig {
            name: name.into(),
            command: ["/bin/sh", "-c", script].map(String::from).into(),
            command_timeout_s,
            ..RuleConfig::default()
        };
        let rules: Vec<_> = rules.iter().map(rule).collect();
        CommandSink::open(&rules).unwrap().unwrap()
    }

    fn wait_for(path: &Path) -> String {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            match std::fs::read_to_string(path) {
                Ok(text) if text.ends_with("end\n") => return text,
                _ => assert!(Instant::now() < deadline, "{} did not come", path.display()),
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Living processes of a group. Those that have ended may be listed until their parent,
    /// which here is the machine's first process, asks for them.
    fn members(group: &str) -> usize {
        let stats = std::fs::read_dir("/proc").unwrap().flatten();
        let stats =
            stats.filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok());
        let is_member = |stat: &String| {
            // After the name in brackets: state, parent, group (proc(5)).
            let fields: Vec<&str> = stat[stat.rfind(')').unwrap_or(0) + 1..].split(' ').collect();
            fields.get(3) == Some(&group) && !matches!(fields.get(1), Some(&"Z" | &"X"))
        };
        stats.filter(is_member).count()
    }

    #[test]
    fn a_command_sees_the_event_and_nothing_of_the_daemon() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let script = format!(
            "{{ env | grep -v '^_=\\|^PWD=\\|^SHLVL=\\|^OLDPWD=' | sort; echo end; }} > {}",
            out.display()
        );
        let mut sink = sink(&[("looks-away", &script, 60.0)]);
        sink.event(&event("other", Change::Raised)).unwrap();
        sink.event(&event("looks-away", Change::Raised)).unwrap();
        let seen = wait_for(&out);
        let path = std::env::var("PATH").unwrap();
        let expected = format!(
            "PATH={path}\nSALIENTD_CAPTURED=1970-01-01T00:00:00.000000000Z\nSALIENTD_CHANGE=raised\n\
             SALIENTD_CLASS=golf ball; rm -rf $HOME\nSALIENTD_CLASS_INDEX=3\n\
             SALIENTD_MODEL_SHA256=ab\nSALIENTD_RULE=looks-away\nSALIENTD_SEQUENCE=42\n\
             SALIENTD_SHARE=0.75\nSALIENTD_SIDE=outside\nSALIENTD_ZONE=gate\nend\n"
        );
        assert_eq!(seen, expected);
        sink.finish().unwrap();
    }

    #[test]
    fn one_after_the_other_the_slow_are_killed_and_the_queue_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let slow = format!(
            "echo $$ > {}; sleep 1000 & sleep 1000; echo end > {}",
            path("pid").display(),
            path("slow").display()
        );
        let quick = format!("echo end > {}", path("quick").display());
        let mut sink = sink(&[("slow", &slow, 0.5), ("quick", &quick, 60.0)]);
        sink.event(&event("slow", Change::Raised)).unwrap();
        sink.event(&event("quick", Change::Raised)).unwrap();
        wait_for(&path("quick"));
        assert!(!path("slow").exists(), "killed before its end");
        // Its group is gone with it.
        let group = std::fs::read_to_string(path("pid")).unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while members(group.trim()) > 0 {
            assert!(Instant::now() < deadline, "of group {} some live on", group.trim());
            std::thread::sleep(Duration::from_millis(5));
        }

        let mut refused = 0;
        for _ in 0..40 {
            refused += usize::from(sink.event(&event("slow", Change::Raised)).is_err());
        }
        // One runs, at most, when the last one comes.
        assert!((40 - QUEUE - 4..=40 - QUEUE).contains(&refused), "{refused}");
        let began = Instant::now();
        sink.finish().unwrap();
        assert!(began.elapsed() < Duration::from_secs(30), "does not wait for them all");
    }

    #[test]
    fn no_command_no_sink() {
        assert!(CommandSink::open(&[RuleConfig::default()]).unwrap().is_none());
    }
}
