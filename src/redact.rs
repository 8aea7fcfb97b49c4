//! Text for people, without what the addresses in it may give away: a camera's command names
//! `rtsp://user:password@camera/…`, and programs print that when they fail.

/// Leaves out of each address who asks and with what: of RFC 3986's parts the user info, the
/// query and the fragment, and parameters in its path, as some cameras have them
/// (`/user=admin&password=…`).
pub fn addresses(text: &str) -> String {
    let mut pieces = text.split("://");
    let mut shown = pieces.next().unwrap_or_default().to_string();
    for piece in pieces {
        shown.push_str("://");
        push_address(piece, &mut shown);
    }
    shown
}

/// `piece` is an address from its host on, and the text after it.
fn push_address(piece: &str, shown: &mut String) {
    let end_of_word = |from: usize| {
        piece[from..].find(char::is_whitespace).map_or(piece.len(), |length| from + length)
    };
    let is_end = |c: char| "/?#".contains(c) || c.is_whitespace();
    let authority = &piece[..piece.find(is_end).unwrap_or(piece.len())];
    let at = piece.rfind('@');
    // A password with such a character, which should be written as %2F and so on: where it
    // begins and ends nobody can tell. Nor where it is cut off before its @.
    if at.is_some_and(|at| at > authority.len()) || at.is_none() && !is_host(authority) {
        shown.extend(["…", &piece[end_of_word(at.unwrap_or(0))..]]);
        return;
    }
    if at.is_some() {
        shown.push('…');
    }
    let (word, rest) = (&piece[at.unwrap_or(0)..end_of_word(0)], &piece[end_of_word(0)..]);
    match word.find(|c| "?#=&;".contains(c)) {
        Some(parameters) => shown.extend([&word[..=parameters], "…", rest]),
        None => shown.extend([word, rest]),
    }
}

/// Whether this is a host with a port, or none, and not a user with a password.
fn is_host(authority: &str) -> bool {
    let authority = authority.trim_end_matches(|c| ":,.;'\")>}".contains(c));
    let port = authority.split_once(':').map_or("", |(_, port)| port);
    authority.starts_with('[') || port.bytes().all(|c| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_keep_their_secrets() {
        for (text, shown) in [
            ("rtsp://me:s3cret@host/x: Connection refused", "rtsp://…@host/x: Connection refused"),
            ("rtsp://me:s3cr@t@cam/1", "rtsp://…@cam/1"),
            ("rtsp://me:it's@cam/1", "rtsp://…@cam/1"),
            ("rtsp://me:s3/cr?t@cam/1 failed", "rtsp://… failed"),
            ("rtsp://me:my secret@cam/1 failed", "rtsp://… failed"),
            ("rtsp://me:s3c", "rtsp://…"),
            ("http://cam/snap?user=admin&pwd=s3cret refused", "http://cam/snap?… refused"),
            ("http://cam/snap?mail=a@b&pwd=s3cret refused", "http://… refused"),
            ("rtsp://cam:554/user=admin&password=s3cret&channel=1", "rtsp://cam:554/user=…"),
            ("a://b:c@d 'e://f@g' h://i", "a://…@d 'e://…@g' h://i"),
        ] {
            assert_eq!(addresses(text), shown);
        }
    }

    #[test]
    fn other_text_stays_as_it_is() {
        for text in [
            "",
            "://",
            "x@y = 1\n",
            "tcp://cam:554: Connection refused",
            "[rtsp @ 0x55d0] 'rtsp://[fe80::1]:554/live/1', no such stream",
        ] {
            assert_eq!(addresses(text), text);
        }
    }
}
