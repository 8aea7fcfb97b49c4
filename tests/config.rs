//! The configuration: schema against structs, errors word for word, sample and manual.

use salientd::config::schema::{Kind, SCHEMA, Table, find_key, find_table, names_in};
use salientd::config::{
    ClipConfig, Config, FileSinkConfig, HttpConfig, MeanConfig, MqttConfig, RuleConfig,
    SocketConfig, V4l2SinkConfig, ZoneConfig, load, parse, render,
};
use std::collections::BTreeSet;
use std::path::Path;

/// Every kind of mistake with its exact report. `{}` stands for a file's name.
#[test]
fn errors_word_for_word() {
    let cases: &[(&str, &str)] = &[
        // Not TOML: line and column.
        (
            "fps = = 3",
            "{}:1:7: not TOML: extra `=`, expected nothing\n\
             {}:1:9: not TOML: unexpected key or value, expected newline, `#`",
        ),
        (
            "[camera\nx",
            "{}:1:8: not TOML: unclosed table, expected `]`\n{}:2:2: not TOML: key with no value, expected `=`",
        ),
        ("[log]\nlevel = \"info\"\nlevel = \"warn\"", "{}:3:1: not TOML: duplicate key"),
        // Unknown keys and tables.
        (
            "[tta]\nhfilp = true",
            "{}:2: tta.hfilp: unknown key (did you mean hflip?), allowed scales, hflip, merge, \
             budget, rolling, gate or thermal",
        ),
        (
            "[log]\nbudget_ms = 3",
            "{}:2: log.budget_ms: unknown key (it belongs in [tta.budget]), allowed level",
        ),
        (
            "[log]\nwidth = 3",
            "{}:2: log.width: unknown key (it belongs in [camera.v4l2], [camera.pipe] or \
             [camera.pattern]), allowed level",
        ),
        (
            "[sink.nats]\nhost = \"x\"",
            "{}:1: sink.nats: unknown key, allowed socket, files, mqtt, v4l2 or http",
        ),
        (
            "[sink.mqtt]\npassword_file = \"p\"\nca_file = \"c\"\nclient_cert_file = \"d\"",
            "{}:2: sink.mqtt.username: missing although sink.mqtt.password_file is set, allowed \
             both or username alone\n\
             {}:3: sink.mqtt.tls: false although certificates are named, allowed true with them\n\
             {}:4: sink.mqtt.client_key_file: missing although the other is set, allowed \
             client_cert_file and client_key_file or neither",
        ),
        (
            "[cameras]",
            "{}:1: cameras: unknown key (did you mean camera?), allowed camera, geometry, model, \
             classes, tta, heatmap, overlay, privacy, zones, rules, mean, sink or log",
        ),
        ("[log]\n\"a.b\" = 1", "{}:2: log.\"a.b\": unknown key, allowed level"),
        // Wrong types.
        (
            "[camera.v4l2]\nwidth = \"big\"",
            "{}:2: camera.v4l2.width: found a string, allowed an integer from 1 to 8192",
        ),
        (
            "[camera.v4l2]\nwidth = 640.0",
            "{}:2: camera.v4l2.width: found a float, allowed an integer from 1 to 8192",
        ),
        ("[tta]\nhflip = 1", "{}:2: tta.hflip: found an integer, allowed true or false"),
        (
            "[overlay]\nalpha = 2026-01-01",
            "{}:2: overlay.alpha: found a datetime, allowed a number from 0 to 1",
        ),
        (
            "[tta]\nscales = 1.0",
            "{}:2: tta.scales: found a float, allowed 1 to 16 values, each a number from 0.25 to 4",
        ),
        ("camera = 3", "{}:1: camera: found an integer, allowed a table"),
        ("[[camera]]", "{}:1: camera: found an array, allowed a table"),
        (
            "[camera.v4l2]\ncontrols = [1]",
            "{}:2: camera.v4l2.controls: found an array, allowed a table of names in snake case and integers",
        ),
        (
            "[model]\npath = true",
            "{}:2: model.path: found a boolean, allowed a text of 1 to 4095 bytes",
        ),
        (
            "[log.level]",
            "{}:1: log.level: found a table, allowed \"error\", \"warn\", \"info\", \"debug\" or \"trace\"",
        ),
        // Out of range.
        (
            "[camera.v4l2]\nfps = 241",
            "{}:2: camera.v4l2.fps: 241 is out of range, allowed an integer from 1 to 240",
        ),
        (
            "[camera]\ntimeout_ms = 0x7",
            "{}:2: camera.timeout_ms: 0x7 is out of range, allowed an integer from 100 to 60000",
        ),
        (
            "[camera]\ntimeout_ms = 99999999999999999999",
            "{}:2: camera.timeout_ms: 99999999999999999999 is out of range, allowed an integer from 100 to 60000",
        ),
        (
            "[overlay]\nalpha = nan",
            "{}:2: overlay.alpha: nan is out of range, allowed a number from 0 to 1",
        ),
        (
            "[overlay]\nalpha = -0.1",
            "{}:2: overlay.alpha: -0.1 is out of range, allowed a number from 0 to 1",
        ),
        (
            "[geometry]\nrotate = 45",
            "{}:2: geometry.rotate: 45 is out of range, allowed 0, 90, 180 or 270",
        ),
        (
            "[sink.socket]\nmode = \"0980\"",
            "{}:2: sink.socket.mode: \"0980\" is out of range, allowed an octal file mode from \"0000\" to \"0777\"",
        ),
        (
            "[classes]\nlist = [-1]",
            "{}:2: classes.list: -1 is out of range, allowed a label or an index from 0",
        ),
        ("[model]\npath = \"\"", "{}:2: model.path: empty, allowed a text of 1 to 4095 bytes"),
        (
            "[model]\nhead = \"a\\u0000b\"",
            "{}:2: model.head: has a NUL byte, allowed a text of 1 to 1024 bytes",
        ),
        // Values that are not on the list.
        (
            "[tta]\nmerge = \"Means\"",
            "{}:2: tta.merge: unknown value \"Means\" (did you mean \"mean\"?), allowed \"mean\" or \"keras\"",
        ),
        (
            "[camera]\nsource = \"usb\"",
            "{}:2: camera.source: unknown value \"usb\", allowed \"v4l2\", \"files\", \"pipe\" or \"pattern\"",
        ),
        (
            "[sink.files]\nwrite = [\"npz\"]",
            "{}:2: sink.files.write: unknown value \"npz\" (did you mean \"npy\"?), allowed \
             \"overlay-png\", \"overlay-jpeg\", \"heatmap-png\", \"npy\", \"mean-png\", \"mean-npy\" or \
             \"jsonl\"",
        ),
        // Lists.
        (
            "[tta]\nscales = []",
            "{}:2: tta.scales: 0 values, allowed 1 to 16 values, each a number from 0.25 to 4",
        ),
        (
            "[tta]\nscales = [\n  1.0,\n  4.5,\n]",
            "{}:4: tta.scales: 4.5 is out of range, allowed a number from 0.25 to 4",
        ),
        (
            "[tta]\nscales = [0.2, 1]",
            "{}:2: tta.scales: 0.2 is out of range, allowed a number from 0.25 to 4",
        ),
        ("[tta]\nscales = [1, 1.0]", "{}:2: tta.scales: 1.0 stands twice, allowed once"),
        // Taken up, both would be shown as 1.0.
        (
            "[tta]\nscales = [1, 1.00000001]",
            "{}:2: tta.scales: 1.00000001 stands twice, allowed once",
        ),
        (
            "[classes]\nlist = [\"a\", 1, \"a\"]",
            "{}:2: classes.list: \"a\" stands twice, allowed once",
        ),
        (
            "[geometry]\ncrop = [0, 0, 4]",
            "{}:2: geometry.crop: 3 values, allowed 4 values, each an integer from 0 to 65535",
        ),
        (
            "[camera.v4l2.controls]\nWhite-Balance = 1",
            "{}:2: camera.v4l2.controls.White-Balance: not in snake case, allowed a-z, 0-9 and _",
        ),
        (
            "[camera.v4l2]\ncontrols = { gain = \"max\" }",
            "{}:2: camera.v4l2.controls.gain: found a string, allowed an integer from \
             -9223372036854775808 to 9223372036854775807",
        ),
        // Combinations.
        (
            "[geometry]\ncrop = [5, 5, 0, 9]",
            "{}:2: geometry.crop: the crop is 0 by 9 pixels, allowed a width and height of at least 1",
        ),
        (
            "[classes]\nleave = 0.5\nenter = 0.25",
            "{}:2: classes.leave: 0.5 is above classes.enter, allowed 0 to 0.25",
        ),
        (
            "[classes]\nselect = \"list\"",
            "{}:2: classes.list: empty although classes.select = \"list\", allowed at least one label or index",
        ),
        (
            "[camera]\nsource = \"files\"",
            "{}:2: camera.files.paths: empty although camera.source = \"files\", allowed at least one file, folder or glob pattern",
        ),
        (
            "[model]\nmean = [1, 2, 3]",
            "{}:2: model.std: missing although model.mean is set, allowed both or neither",
        ),
        (
            "[model]\nstd = [1, 2, 3]",
            "{}:2: model.mean: missing although model.std is set, allowed both or neither",
        ),
        (
            "[tta.budget]\nbudget_ms = 100\n[tta]\nmerge = \"keras\"",
            "{}:4: tta.merge: \"keras\" needs the complete set of views, which tta.budget.budget_ms \
             may cut short, allowed \"mean\" with it",
        ),
        (
            "[tta]\nmerge = \"keras\"\nrolling.enabled = true",
            "{}:2: tta.merge: \"keras\" needs the complete set of views, which tta.rolling.enabled \
             may cut short, allowed \"mean\" with it",
        ),
        (
            "[tta.thermal]\nsensor = \"hottest\"\n[tta]\nmerge = \"keras\"",
            "{}:4: tta.merge: \"keras\" needs the complete set of views, which tta.thermal.sensor \
             may cut short, allowed \"mean\" with it",
        ),
        (
            "[heatmap]\nmethod = \"scorecam\"\n[tta.budget]\ngmacs_per_s = 1",
            "{}:2: heatmap.method: \"scorecam\" runs the model many times for each view, which \
             tta.budget.gmacs_per_s cannot limit, allowed any other with it",
        ),
        (
            "[tta]\nscales = [0.5, 2]\n[tta.rolling]\nenabled = true",
            "{}:4: tta.rolling.enabled: true although the view that every frame gets, scale 1, is \
             not among tta.scales, allowed with 1.0 among them",
        ),
        (
            "[tta]\nscales = [0.5, 1]\nhflip = false\n[tta.budget]\norder = [\"0.5\", \"0.5f\"]",
            "{}:5: tta.budget.order: \"0.5f\" is no view here, allowed 0.5 or 1",
        ),
        (
            "[tta.gate]\nunsure_entropy = 0.5",
            "{}:2: tta.gate.unsure_entropy: changes nothing where every frame gets all of the \
             budget, allowed with usual_percent below 100 or with sure_margin",
        ),
        (
            "[tta.thermal]\ncool_celsius = 75",
            "{}:2: tta.thermal.cool_celsius: 75 is not below tta.thermal.hot_celsius, allowed less \
             than 75",
        ),
        (
            "[sink.files]\nwrite = [\"npy\", \"mean-npy\"]",
            "{}:2: sink.files.write: \"mean-npy\" shows what [mean] keeps, allowed with it",
        ),
        // Lists of tables.
        ("[zones]", "{}:1: zones: found a table, allowed tables [[zones]]"),
        ("zones = [1]", "{}:1: zones: found an integer, allowed a table"),
        (
            "[[zones]]\nname = \"a b\"\npolygons = 1",
            "{}:1: zones.polygon: missing, allowed 3 to 64 values, each 2 values, each a number from 0 to 1\n\
             {}:2: zones.name: \"a b\" is out of range, allowed 1 to 64 letters, digits, - and _\n\
             {}:3: zones.polygons: unknown key (did you mean polygon?), allowed name or polygon",
        ),
        (
            "[[zones]]\nname = \"a\"\npolygon = [[0, 0], [1, 0], [0, 1.5]]",
            "{}:3: zones.polygon: 1.5 is out of range, allowed a number from 0 to 1",
        ),
        (
            "[[zones]]\nname = \"a\"\npolygon = [[0, 0], [1, 1], [1, 0], [0, 1]]",
            "{}:3: zones.polygon: sides 1 and 3 cross or touch, allowed a polygon that does not cross itself",
        ),
        (
            "[[zones]]\nname = \"a\"\npolygon = [[0, 0], [0, 0], [1, 0]]\n\
             [[zones]]\nname = \"a\"\npolygon = [[0, 0], [0, 1], [1, 0]]\n\
             [[rules]]\nname = \"r\"\nzone = \"b\"\nbelow = 0.7",
            "{}:3: zones.polygon: side 1 has no length, allowed distinct neighbours\n\
             {}:5: zones.name: \"a\" stands twice, allowed once\n\
             {}:9: rules.zone: there is no zone \"b\", allowed \"a\" or \"a\"\n\
             {}:10: rules.below: 0.7 is above rules.above, allowed 0 to 0.6",
        ),
        (
            "[[rules]]\nname = \"r\"\nzone = \"b\"",
            "{}:3: rules.zone: there is no zone \"b\", allowed one of [[zones]]",
        ),
        // All at once, in the order of the lines; combinations too, except of bad keys.
        (
            "[tta]\nscales = []\nmerge = \"keras\"\nbudget = { budget_ms = 9 }\n[classes]\nleave = 2\nenter = 0.1\n[x]",
            "{}:2: tta.scales: 0 values, allowed 1 to 16 values, each a number from 0.25 to 4\n\
             {}:3: tta.merge: \"keras\" needs the complete set of views, which tta.budget.budget_ms \
             may cut short, allowed \"mean\" with it\n\
             {}:6: classes.leave: 2 is out of range, allowed a number from 0 to 1\n\
             {}:8: x: unknown key, allowed camera, geometry, model, classes, tta, heatmap, \
             overlay, privacy, zones, rules, mean, sink or log",
        ),
    ];
    let mut wrong = String::new();
    for (text, expected) in cases {
        let expected = expected.replace("{}", "bad.toml");
        let seen = parse(text, "bad.toml").map_or_else(|e| e.to_string(), |_| "no error".into());
        if seen != expected {
            wrong += &format!("--- {text}\nexpected {expected}\nbut said {seen}\n");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn a_flood_of_problems_is_cut() {
    let text: String = (0..60).map(|i| format!("key{i:02} = 1\n")).collect();
    let report = parse(&text, "f").unwrap_err().to_string();
    assert_eq!(report.lines().count(), 51);
    assert_eq!(report.lines().last(), Some("f: and 10 more problems"));
}

#[test]
fn files_that_cannot_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let check = |file: &str, bytes: Option<&[u8]>, expected: &str| {
        let path = dir.path().join(file);
        if let Some(bytes) = bytes {
            std::fs::write(&path, bytes).unwrap();
        }
        let report = load(&path).unwrap_err().to_string();
        assert_eq!(report, format!("{}:{expected}", path.display()));
    };
    check("missing", None, " cannot be read: No such file or directory (os error 2)");
    check("latin1", Some(b"[log]\nlevel = \"\xe9\""), "2: not UTF-8 text");
    check("long", Some(&vec![b'#'; (1 << 20) + 1]), " too long, allowed 1048576 bytes");
    let report = load(dir.path()).unwrap_err().to_string();
    assert_eq!(
        report,
        format!("{}: cannot be read: Is a directory (os error 21)", dir.path().display())
    );
}

#[test]
fn an_empty_file_is_the_default() {
    assert_eq!(parse("", "f"), Ok(Config::default()));
}

/// What serde itself says of a table's fields: the words in backticks after "expected".
fn names_in_error(text: &str) -> BTreeSet<String> {
    let message = toml::from_str::<Config>(text).unwrap_err().message().to_string();
    let expected = message.split_once("expected").unwrap_or_else(|| panic!("{message}")).1;
    expected.split('`').skip(1).step_by(2).map(Into::into).collect()
}

fn names<T: Into<String>>(list: Vec<T>) -> BTreeSet<String> {
    list.into_iter().map(Into::into).collect()
}

#[test]
fn schema_and_structs_have_the_same_keys() {
    assert_eq!(names_in_error("\"?\" = 1"), names(names_in("")));
    for table in SCHEMA {
        let fields = names_in_error(&format!("{}\n\"?\" = 1", header(table)));
        assert_eq!(fields, names(names_in(table.path)), "[{}]", table.path);
    }
}

#[test]
fn schema_and_enums_have_the_same_values() {
    for (path, kind) in all_keys() {
        let (values, text) = match kind {
            Kind::Choice(values) => (values, set(&path, "\"?\"")),
            Kind::List { of: Kind::Choice(values), .. } => (values, set(&path, "[\"?\"]")),
            _ => continue,
        };
        // Settings kept as text take any; those the check alone guards.
        if toml::from_str::<Config>(&text).is_err() {
            assert_eq!(names_in_error(&text), names(values.to_vec()), "{path}");
        }
    }
}

/// Every value that the schema allows is taken by the structs too, and what lies just
/// outside is not allowed.
#[test]
fn ends_of_ranges() {
    for (path, kind) in all_keys() {
        let (good, bad) = ends(kind);
        for value in good {
            let complaint = complaints(&path, &value);
            assert_eq!(complaint, "", "{path} = {value}");
        }
        for value in bad {
            assert_ne!(complaints(&path, &value), "", "{path} = {value}");
        }
    }
}

#[test]
fn as_many_tables_as_allowed_and_no_more() {
    let zones = |count: usize| -> String {
        let zone = |i| format!("[[zones]]\nname = \"z{i}\"\npolygon = [[0, 0], [1, 0], [0, 1]]\n");
        (0..count).map(zone).collect()
    };
    parse(&zones(32), "f").unwrap();
    let report = parse(&zones(33), "f").unwrap_err().to_string();
    assert_eq!(report, "f:1: zones: 33 tables, allowed at most 32");
}

/// What is said about one key; combinations are another matter.
fn complaints(path: &str, value: &str) -> String {
    match parse(&set(path, value), "f") {
        Ok(_) => String::new(),
        Err(errors) => {
            let combination = [
                "missing although",
                "empty although",
                "true although",
                "the crop is",
                "is above",
                "is not below",
                "is no view",
                "changes nothing",
                "there is no zone",
                "shows what [mean] keeps",
                "false although",
                "is nothing to listen on",
                "has no length",
                "cross or touch",
            ];
            let own = |text: &str| !combination.iter().any(|c| text.contains(c));
            let texts = errors.problems.iter().map(|p| p.text.as_str());
            texts.filter(|t| own(t)).collect::<Vec<_>>().join("; ")
        }
    }
}

/// Values at both ends of what a kind allows, and just outside.
fn ends(kind: &Kind) -> (Vec<String>, Vec<String>) {
    let text = |values: &[&dyn std::fmt::Debug]| -> Vec<String> {
        values.iter().map(|v| format!("{v:?}")).collect()
    };
    match kind {
        Kind::Boolean => (text(&[&true, &false]), text(&[&0])),
        Kind::Integer { min, max } => {
            let outside: Vec<_> = [min.checked_sub(1), max.checked_add(1)]
                .iter()
                .flatten()
                .map(i64::to_string)
                .collect();
            (text(&[min, max]), outside)
        }
        Kind::IntegerOf(values) => {
            (values.iter().map(i64::to_string).collect(), text(&[&(values[0] - 1)]))
        }
        Kind::Number { min, max } => {
            (text(&[min, max]), text(&[&(min - 0.001), &(max + 0.001), &f64::NAN]))
        }
        Kind::Text { max_bytes } => {
            let long = "x".repeat(*max_bytes);
            (text(&[&"x", &long]), text(&[&"", &format!("{long}x")]))
        }
        Kind::Choice(values) => {
            (values.iter().map(|v| format!("{v:?}")).collect(), text(&[&"", &"?"]))
        }
        Kind::FileMode => (text(&[&"0000", &"0777"]), text(&[&"777", &"1777", &"0778", &"00600"])),
        Kind::Name => {
            let long = "x".repeat(64);
            (text(&[&"a-Z_0", &long]), text(&[&"", &"a b", &"\u{e4}", &format!("{long}x")]))
        }
        Kind::Listen => (
            text(&[&"127.0.0.1:0", &"[::1]:65535", &"unix:/s", &"systemd"]),
            text(&[&"", &"localhost", &"localhost:80", &"127.0.0.1", &"1.2.3.4:65536", &"unix:"]),
        ),
        Kind::Class => (text(&[&0, &"tench"]), text(&[&-1, &"", &1.0])),
        Kind::IntegerMap => (
            vec!["{}".into(), "{ gain = -9223372036854775808, a_1 = 1 }".into()],
            vec!["{ gain = 1.0 }".into(), "{ Gain = 1 }".into(), "{ \"\" = 1 }".into()],
        ),
        Kind::List { of, min, max, distinct } => {
            let (good, bad) = ends(of);
            let fill = |n: usize, value: &str| format!("[{}]", vec![value; n].join(", "));
            let longest =
                if *distinct { good.join(", ") } else { vec![good[0].as_str(); *max].join(", ") };
            let mut outside: Vec<_> = bad.iter().map(|b| fill((*min).max(1), b)).collect();
            outside.push(fill(max + 1, &good[0]));
            outside.extend(min.checked_sub(1).map(|n| fill(n, &good[0])));
            if *distinct {
                outside.push(fill(2, &good[0]));
            }
            (vec![fill(*min, &good[0]), format!("[{longest}]")], outside)
        }
    }
}

fn all_keys() -> impl Iterator<Item = (String, &'static Kind)> {
    SCHEMA.iter().flat_map(|t| t.keys.iter().map(|k| (format!("{}.{}", t.path, k.name), &k.kind)))
}

/// The key alone in its table, with the others that the table needs.
fn set(path: &str, value: &str) -> String {
    let (table, name) = path.rsplit_once('.').unwrap();
    let table = find_table(table).unwrap();
    let mut text = format!("{}\n{name} = {value}\n", header(table));
    for key in table.keys.iter().filter(|k| k.required && k.name != name) {
        let (good, _) = ends(&key.kind);
        text += &format!("{} = {}\n", key.name, good[0]);
    }
    text
}

fn header(table: &Table) -> String {
    match table.max_count {
        None => format!("[{}]", table.path),
        Some(_) => format!("[[{}]]", table.path),
    }
}

#[test]
fn defaults_and_examples_pass_their_own_check() {
    let all = render::effective(&everything_on());
    assert_eq!(parse(&all, "defaults"), Ok(everything_on()));
    for (path, _) in all_keys() {
        if let Some(example) = find_key(&path).unwrap().example {
            assert_eq!(complaints(&path, example), "", "{path} = {example}");
        }
    }
}

#[test]
fn shown_configurations_read_back() {
    let texts = [
        "",
        "[camera.v4l2]\ncontrols = { gain = 3, focus_auto = 0 }\n[sink.files]\nevery_s = 0.1",
        "[model]\nmean = [123.675, 116.28, 103.53]\nstd = [58.395, 57.12, 57.375]\nsize = [96, 128]",
        "[classes]\nselect = \"list\"\nlist = [\"a \\\"b\\\"\", 3]\n[geometry]\ncrop = [1, 2, 3, 4]",
        "[tta]\nscales = [0.3, 1]\nhflip = false\n[tta.budget]\nbudget_ms = 150\norder = [\"0.3\"]\n[sink.socket]",
        "[tta.rolling]\nenabled = true\n[tta.gate]\nunchanged_levels = 2\n[tta.thermal]\nsensor = \"a\"",
        "[[zones]]\nname = \"a\"\npolygon = [[0, 0], [0, 1], [1, 0]]\n[[zones]]\nname = \"b\"\npolygon = [[0, 0], [0, 1], [0.3, 0.1]]\n\
         [[rules]]\nname = \"r\"\nzone = \"b\"\nclass = 3\n[mean]",
        "[camera.pipe]\ncommand = [\"a'b\", \"c\\td\", \"\\u007f\"]",
    ];
    for text in texts {
        let config = parse(text, "f").unwrap();
        let shown = render::effective(&config);
        assert_eq!(parse(&shown, "shown"), Ok(config), "{shown}");
    }
}

#[test]
fn the_sample_file_says_the_defaults() {
    let sample = up_to_date("config/salientd.toml", |_| render::sample());
    let expected = Config {
        sink: salientd::config::SinksConfig {
            socket: Some(SocketConfig::default()),
            ..Default::default()
        },
        ..Config::default()
    };
    assert_eq!(parse(&sample, "sample"), Ok(expected));
    let uncommented: String = sample
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(code) if !code.starts_with(' ') => format!("{code}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    assert_eq!(parse(&uncommented, "uncommented"), Ok(everything_on()));
    // A line may end within an example.
    let sample = sample.replace("\n# ", " ");
    for (path, _) in all_keys() {
        let name = path.rsplit('.').next().unwrap();
        assert!(sample.contains(&format!("{name} = ")), "{path} is missing");
    }
}

#[test]
fn the_manual_lists_every_key() {
    const MARK: &str = "<!-- Made from src/config/schema.rs; see tests/config.rs. -->\n";
    up_to_date("docs/config.md", |old| {
        let (before, _) = old.split_once(MARK).expect("the mark stands in docs/config.md");
        format!("{before}{MARK}{}", render::markdown())
    });
}

fn everything_on() -> Config {
    let mut config = Config::default();
    config.sink.socket = Some(SocketConfig::default());
    let clip = Some(ClipConfig::default());
    config.sink.files = Some(FileSinkConfig { clip, ..FileSinkConfig::default() });
    config.sink.http = Some(HttpConfig::default());
    config.sink.mqtt = Some(MqttConfig::default());
    config.sink.v4l2 = Some(V4l2SinkConfig::default());
    config.zones = vec![ZoneConfig::default()];
    config.rules = vec![RuleConfig::default()];
    config.mean = Some(MeanConfig::default());
    config
}

/// Holds a file in the repository against what is made from the schema. With UPDATE=1 in
/// the environment it is written anew.
fn up_to_date(file: &str, make: impl Fn(&str) -> String) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    let stands = std::fs::read_to_string(&path).unwrap_or_default();
    let made = make(&stands);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &made).unwrap();
    } else {
        assert!(stands == made, "{file} is old; write it anew: UPDATE=1 cargo test --test config");
    }
    made
}
