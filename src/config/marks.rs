//! Whether the files that a configuration names are still those that were read.

use super::Config;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What files looked like. Equal: nobody has written to them or put others in their place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileMarks(Vec<Option<Mark>>);

/// Device, inode, bytes, and the times of the last write and of the last change of the
/// inode in s and ns: a file copied with its times still has a new change time.
type Mark = [i64; 7];

/// Take them before reading the files: what changes meanwhile is seen the next time.
impl FileMarks {
    /// Of the model and its labels.
    pub fn of_model(config: &Config) -> Self {
        Self::of([&config.model.path, &config.model.labels])
    }

    /// Of what sinks read when they are opened: secrets and certificates.
    pub fn of_sinks(config: &Config) -> Self {
        let (http, mqtt) = (config.sink.http.iter(), config.sink.mqtt.iter());
        let mqtt = mqtt.flat_map(|mqtt| {
            [&mqtt.password_file, &mqtt.ca_file, &mqtt.client_cert_file, &mqtt.client_key_file]
        });
        Self::of(http.map(|http| &http.token_file).chain(mqtt))
    }

    fn of<'a>(files: impl IntoIterator<Item = &'a Option<PathBuf>>) -> Self {
        Self(files.into_iter().map(|path| path.as_deref().and_then(mark)).collect())
    }
}

/// None where there is no such file.
fn mark(path: &Path) -> Option<Mark> {
    let m = std::fs::metadata(path).ok()?;
    let [device, inode, bytes] = [m.dev(), m.ino(), m.size()].map(|n| n as i64);
    Some([device, inode, bytes, m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec()])
}

#[cfg(test)]
mod tests {
    use super::super::{HttpConfig, MqttConfig};
    use super::*;
    use std::fs;

    #[test]
    fn a_write_a_replacement_and_a_removal_are_seen() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let mut config = Config::default();
        config.model.path = Some(path("m"));
        config.model.labels = Some(path("l"));
        let mut marks = vec![FileMarks::of_model(&config)];
        let mut changed = |what: &str| {
            let now = FileMarks::of_model(&config);
            assert_eq!(now, FileMarks::of_model(&config), "{what}: nothing happened in between");
            assert!(!marks.contains(&now), "{what}");
            marks.push(now);
        };
        fs::write(path("m"), "model").unwrap();
        changed("model comes");
        fs::write(path("l"), "a\nb").unwrap();
        changed("labels come");
        fs::write(path("l"), "a\nbc").unwrap();
        changed("labels are longer");
        fs::write(path("other"), "lodel").unwrap();
        fs::rename(path("other"), path("m")).unwrap();
        changed("another model of the same size");
        fs::remove_file(path("m")).unwrap();
        changed("model goes");
    }

    #[test]
    fn every_file_that_sinks_read_is_seen_to_change() {
        let dir = tempfile::tempdir().unwrap();
        let keys = ["token", "password", "ca", "cert", "key"];
        let [token_file, password_file, ca_file, client_cert_file, client_key_file] =
            keys.map(|name| Some(dir.path().join(name)));
        let mut config = Config::default();
        config.sink.http = Some(HttpConfig { token_file, ..Default::default() });
        config.sink.mqtt = Some(MqttConfig {
            password_file,
            ca_file,
            client_cert_file,
            client_key_file,
            ..Default::default()
        });
        for name in keys {
            let before = FileMarks::of_sinks(&config);
            fs::write(dir.path().join(name), "secret").unwrap();
            assert_ne!(FileMarks::of_sinks(&config), before, "{name}");
        }
    }
}
