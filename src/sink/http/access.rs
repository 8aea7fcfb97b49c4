//! Who may ask: the secret that requests carry, and the names that a browser may call us by.

use super::{SinkError, open_error};
use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, HOST};
use sha2::{Digest, Sha256};
use std::net::IpAddr;
use std::path::Path;
use subtle::ConstantTimeEq;

/// Shorter ones are guessed; longer ones fit no header.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 8..=1024;

/// The token's SHA-256: comparing takes the same time whatever was sent, whatever its length.
pub(super) struct Secret([u8; 32]);

/// What came of looking at a request's credentials.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Credentials {
    Good,
    Missing,
    Wrong,
}

impl Secret {
    /// The first line of a file.
    pub fn read(path: &Path) -> Result<Self, SinkError> {
        let shown = path.display();
        let wrong = |why: String| open_error(format!("token_file {shown}: {why}"));
        let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        let token = text.lines().next().unwrap_or_default().trim();
        if !SECRET_BYTES.contains(&token.len()) {
            return Err(wrong(format!(
                "a first line of {} bytes, allowed {} to {}; make one with: \
                 openssl rand -hex 32",
                token.len(),
                SECRET_BYTES.start(),
                SECRET_BYTES.end()
            )));
        }
        if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(wrong("the first line may hold visible ASCII characters only".into()));
        }
        Ok(Self(Sha256::digest(token).into()))
    }

    fn is(&self, token: &[u8]) -> bool {
        let digest: [u8; 32] = Sha256::digest(token).into();
        digest.ct_eq(&self.0).into()
    }

    /// `Authorization: Bearer TOKEN`, or `Basic` with the token as the password of any user.
    pub fn check(&self, headers: &HeaderMap) -> Credentials {
        let Some(value) = headers.get(AUTHORIZATION) else { return Credentials::Missing };
        let value = value.as_bytes();
        let Some(space) = value.iter().position(|&byte| byte == b' ') else {
            return Credentials::Wrong;
        };
        let (scheme, rest) = (&value[..space], value[space..].trim_ascii());
        let good = if scheme.eq_ignore_ascii_case(b"bearer") {
            self.is(rest)
        } else if scheme.eq_ignore_ascii_case(b"basic") {
            decode_base64(rest).is_some_and(|pair| {
                let password = pair.iter().position(|&byte| byte == b':');
                password.is_some_and(|colon| self.is(&pair[colon + 1..]))
            })
        } else {
            false
        };
        if good { Credentials::Good } else { Credentials::Wrong }
    }
}

fn decode_base64(text: &[u8]) -> Option<Vec<u8>> {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.decode(text).ok()
}

/// Whether a request names us as only somebody can who reaches us directly. A page from
/// elsewhere may point its own name at this machine (DNS rebinding) and then read what is
/// served here; but it cannot claim an address, `localhost`, a name without dots, or one
/// that only the local network gives out.
pub(super) fn is_local_name(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(HOST) else { return true }; // no browser leaves it out
    let Ok(host) = host.to_str() else { return false };
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let is_home = |end: &str| name.ends_with(end);
    name.parse::<IpAddr>().is_ok()
        || !name.contains('.')
        || [".localhost", ".local", ".home.arpa", ".internal"].into_iter().any(is_home)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Result<Secret, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Secret::read(file.path())
            .map_err(|error| error.to_string().replace(file.path().to_str().unwrap(), "F"))
    }

    fn headers(name: hyper::header::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().unwrap())])
    }

    #[test]
    fn only_the_token_opens() {
        let secret = secret("correct-horse\nwhat follows does not count\n").ok().unwrap();
        for (value, expected) in [
            ("Bearer correct-horse", Credentials::Good),
            ("bearer  correct-horse ", Credentials::Good),
            ("Basic Y2FtOmNvcnJlY3QtaG9yc2U=", Credentials::Good), // cam:correct-horse
            ("Basic OmNvcnJlY3QtaG9yc2U=", Credentials::Good),     // :correct-horse
            ("Basic Y29ycmVjdC1ob3JzZQ==", Credentials::Wrong),    // no colon
            ("Basic Y2FtOmNvcnJlY3QtaG9yc2Ux", Credentials::Wrong), // one letter more
            ("Basic %%%", Credentials::Wrong),
            ("Bearer correct-hors", Credentials::Wrong),
            ("Bearer correct-horsee", Credentials::Wrong),
            ("Bearer ", Credentials::Wrong),
            ("correct-horse", Credentials::Wrong),
            ("Digest correct-horse", Credentials::Wrong),
        ] {
            assert_eq!(secret.check(&headers(AUTHORIZATION, value)), expected, "{value}");
        }
        assert_eq!(secret.check(&HeaderMap::new()), Credentials::Missing);
    }

    #[test]
    fn a_token_file_that_cannot_be_used_is_told() {
        let short = "sink.http: token_file F: a first line of 3 bytes, allowed 8 to 1024; make \
                     one with: openssl rand -hex 32";
        let odd = "sink.http: token_file F: the first line may hold visible ASCII characters only";
        for (text, said) in [("abc", short), ("correct horse", odd), ("schlüssel", odd)] {
            assert_eq!(secret(text).err().as_deref(), Some(said));
        }
        let gone = Secret::read(Path::new("/nowhere/token")).err().unwrap().to_string();
        assert_eq!(
            gone,
            "sink.http: token_file /nowhere/token: No such file or directory (os error 2)"
        );
    }

    #[test]
    fn a_name_from_elsewhere_is_not_ours() {
        for (host, local) in [
            ("127.0.0.1:8088", true),
            ("192.168.1.7", true),
            ("[::1]:8088", true),
            ("[fe80::1]", true),
            ("localhost:8088", true),
            ("raspberrypi:8088", true),
            ("Board.local", true),
            ("cam.home.arpa.:80", true),
            ("evil.example", false),
            ("evil.example:8088", false),
            ("127.0.0.1.evil.example", false),
            ("local.example", false),
        ] {
            assert_eq!(is_local_name(&headers(HOST, host)), local, "{host}");
        }
        assert!(is_local_name(&HeaderMap::new()));
    }
}
