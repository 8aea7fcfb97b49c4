//! The live page: one file without a word from elsewhere.

use super::body::Answer;
use crate::config::Colormap;
use crate::heatmap::colormap;
use hyper::Response;
use hyper::body::Bytes;
use hyper::header::{CONTENT_SECURITY_POLICY, HeaderValue};
use std::sync::OnceLock;

const PAGE: &str = include_str!("page.html");
/// In the page, where the colours go.
const COLOURS: &str = "/*COLOURS*/";
/// The page may talk to this daemon alone. Style and script stand in it.
const POLICY: &str = "default-src 'none'; img-src 'self' blob: data:; connect-src 'self'; \
                      style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'; \
                      form-action 'none'";

/// The page with the colour tables in it, so that they stand in the code once.
pub(super) fn html() -> Bytes {
    static HTML: OnceLock<Bytes> = OnceLock::new();
    HTML.get_or_init(|| PAGE.replace(COLOURS, &colours()).into()).clone()
}

/// `turbo:"30123b…",…`: 256 colours each, six hexadecimal digits a colour.
fn colours() -> String {
    let maps = [
        ("turbo", Colormap::Turbo),
        ("viridis", Colormap::Viridis),
        ("inferno", Colormap::Inferno),
        ("jet", Colormap::Jet),
        ("grey", Colormap::Grey),
    ];
    let hex = |[r, g, b]: [u8; 3]| format!("{r:02x}{g:02x}{b:02x}");
    let entry = |(name, map)| {
        let digits: String = colormap::table(map).into_iter().map(hex).collect();
        format!("{name}:\"{digits}\"")
    };
    maps.map(entry).join(",")
}

pub(super) fn response(mut page: Response<Answer>) -> Response<Answer> {
    page.headers_mut().insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_whole_and_asks_nobody_else() {
        let html = String::from_utf8(html().to_vec()).unwrap();
        assert!(html.contains("turbo:\"30123b") && !html.contains(COLOURS));
        for word in ["http://", "https://", "//cdn", "@import", "src=\"//"] {
            let namespaces = html.replace("http://www.w3.org/2000/svg", "");
            assert!(!namespaces.contains(word), "the page has {word}");
        }
    }
}
