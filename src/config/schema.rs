//! Every key of the configuration in one table: its kind, its range and what it means.
//!
//! Checking ([`super::load`]), the sample file, `show-config` and docs/config.md all read
//! this table; a test holds it against the structs, field by field. Defaults are not
//! repeated here: they are those of the structs.

use Kind::*;

/// A TOML table of the configuration.
pub struct Table {
    /// Dotted, as between the brackets of its header.
    pub path: &'static str,
    /// One sentence.
    pub doc: &'static str,
    /// Whether the mere presence of the table switches something on.
    pub optional: bool,
    /// For a table that may stand any number of times, `[[path]]`: how often at most.
    pub max_count: Option<usize>,
    pub keys: &'static [Key],
}

/// A key within a [`Table`].
pub struct Key {
    pub name: &'static str,
    pub kind: Kind,
    /// Whether its table is wrong without it.
    pub required: bool,
    /// A value in TOML, for a key that has no default.
    pub example: Option<&'static str>,
    /// One or two sentences, without the range.
    pub doc: &'static str,
}

/// What a value may be. Ranges include both ends.
pub enum Kind {
    Boolean,
    Integer {
        min: i64,
        max: i64,
    },
    /// One of a few integers.
    IntegerOf(&'static [i64]),
    /// A float; an integer will do.
    Number {
        min: f64,
        max: f64,
    },
    /// Not empty, without NUL bytes, at most so long.
    Text {
        max_bytes: usize,
    },
    Choice(&'static [&'static str]),
    /// A file mode in octal, as text.
    FileMode,
    /// Where to listen for connections; see [`super::HttpListen`].
    Listen,
    /// A class: its label or its index.
    Class,
    /// What goes unchanged into topics, labels and environments: letters, digits, `-`, `_`.
    Name,
    List {
        of: &'static Kind,
        min: usize,
        max: usize,
        distinct: bool,
    },
    /// A table of names in snake case and integers.
    IntegerMap,
}

/// Longest path that Linux takes (PATH_MAX less its NUL).
const PATH: Kind = Text { max_bytes: 4095 };
const TEXT: Kind = Text { max_bytes: 1024 };
const SHARE: Kind = Number { min: 0.0, max: 1.0 };
const SIDE: Kind = Integer { min: 1, max: 8192 };
/// From a frame in 100 s to 1,000 a second.
const RATE: Kind = Number { min: 0.01, max: 1000.0 };
/// A point of a picture, [x, y] in fractions of its width and height.
const POINT: Kind = List { of: &SHARE, min: 2, max: 2, distinct: false };

const fn key(name: &'static str, kind: Kind, doc: &'static str) -> Key {
    Key { name, kind, required: false, example: None, doc }
}

const fn required(name: &'static str, kind: Kind, doc: &'static str) -> Key {
    Key { name, kind, required: true, example: None, doc }
}

const fn unset(name: &'static str, kind: Kind, example: &'static str, doc: &'static str) -> Key {
    Key { name, kind, required: false, example: Some(example), doc }
}

const fn table(path: &'static str, doc: &'static str, keys: &'static [Key]) -> Table {
    Table { path, doc, optional: false, max_count: None, keys }
}

const fn optional(path: &'static str, doc: &'static str, keys: &'static [Key]) -> Table {
    Table { path, doc, optional: true, max_count: None, keys }
}

const fn repeated(
    path: &'static str,
    max_count: usize,
    doc: &'static str,
    keys: &'static [Key],
) -> Table {
    Table { path, doc, optional: true, max_count: Some(max_count), keys }
}

/// The whole configuration, in the order in which people read it.
pub static SCHEMA: &[Table] = &[
    table(
        "camera",
        "Where frames come from.",
        &[
            key(
                "source",
                Choice(&["v4l2", "files", "pipe", "pattern"]),
                "A V4L2 device, image files, another program's output, or a moving synthetic \
                 scene; each has a table of its own below.",
            ),
            key(
                "timeout_ms",
                Integer { min: 100, max: 60_000 },
                "A wait for a frame longer than this is a stall: the camera is reopened. A \
                 command's first frame may take 10 s even so.",
            ),
        ],
    ),
    table(
        "camera.v4l2",
        "A USB camera or any other V4L2 capture device.",
        &[
            key(
                "device",
                TEXT,
                "A path such as /dev/video0 or one under /dev/v4l/by-id/, or name:TEXT, \
                 serial:TEXT or bus:TEXT: the first capture device whose card name, USB serial \
                 or bus information contains TEXT. Device numbers move; names do not.",
            ),
            key("width", SIDE, "Width to ask for, in pixels; the driver may give another."),
            key("height", SIDE, "Height to ask for, in pixels."),
            key("fps", Integer { min: 1, max: 240 }, "Frames per second to ask for."),
            key(
                "format",
                Choice(&[
                    "auto", "YUYV", "UYVY", "NV12", "YU12", "RGB3", "BGR3", "GREY", "MJPG", "NM12",
                    "YM12",
                ]),
                "Pixel format by its V4L2 code. auto: of the formats that the camera offers at the \
                 wanted size and rate, the one that costs the least to move and decode; \
                 docs/cameras.md has the exact order. NM12 and YM12 are NV12 and YU12 with each \
                 plane in a buffer of its own: NV12 and YU12 accept both kinds, NM12 and YM12 \
                 only that one.",
            ),
            key("buffers", Integer { min: 2, max: 32 }, "Kernel buffers to ask for."),
            key(
                "controls",
                IntegerMap,
                "Driver controls to set, by name in snake case as v4l2-ctl -l prints them, for \
                 example { brightness = 128 }.",
            ),
        ],
    ),
    table(
        "camera.files",
        "Image files as a camera.",
        &[
            key(
                "paths",
                List { of: &PATH, min: 0, max: 10_000, distinct: false },
                "Files, folders or glob patterns, one after the other; within each, name order.",
            ),
            key("loop", Boolean, "Start again after the last picture."),
            key("fps", RATE, "Pictures per second."),
        ],
    ),
    table(
        "camera.pipe",
        "Frames that another program writes, such as rpicam-vid, ffmpeg or GStreamer.",
        &[
            key(
                "command",
                List { of: &Text { max_bytes: 4095 }, min: 0, max: 256, distinct: false },
                "Program and arguments, started without a shell; its standard output is read. \
                 Empty: this process's standard input is read.",
            ),
            key(
                "format",
                Choice(&["y4m", "mjpeg", "raw"]),
                "What it writes: a YUV4MPEG2 stream, JPEG images one after the other, or bare \
                 frames laid out as the next three keys say.",
            ),
            key("width", SIDE, "Width of a raw frame, in pixels."),
            key("height", SIDE, "Height of a raw frame, in pixels."),
            key(
                "pixel_format",
                Choice(&["YUYV", "UYVY", "NV12", "YU12", "RGB3", "BGR3", "GREY"]),
                "Layout of a raw frame, by its V4L2 code.",
            ),
        ],
    ),
    table(
        "camera.pattern",
        "A moving synthetic scene, for trying things out without a camera.",
        &[
            key("width", SIDE, "Width in pixels."),
            key("height", SIDE, "Height in pixels."),
            key("fps", RATE, "Frames per second."),
        ],
    ),
    table(
        "geometry",
        "From the camera's frame to the model's input, in this order: rotate, mirror, crop, fit.",
        &[
            key(
                "fit",
                Choice(&["stretch", "center-crop", "letterbox"]),
                "How the picture comes to the model's aspect ratio: squeezed whole, cut to the \
                 largest centred rectangle, or whole and padded.",
            ),
            unset(
                "crop",
                List { of: &Integer { min: 0, max: 65_535 }, min: 4, max: 4, distinct: false },
                "[0, 0, 640, 480]",
                "The part to look at, [x, y, width, height] in pixels of the upright picture; \
                 without it, all of the picture.",
            ),
            key("rotate", IntegerOf(&[0, 90, 180, 270]), "Degrees clockwise."),
            key("mirror", Boolean, "Swap left and right, after the rotation."),
        ],
    ),
    table(
        "model",
        "The classifier. Without a path, the one built into the program.",
        &[
            unset(
                "path",
                PATH,
                "\"/etc/salientd/model.onnx\"",
                "An ONNX network that ends in global average pooling and a linear head.",
            ),
            unset(
                "labels",
                PATH,
                "\"/etc/salientd/labels.txt\"",
                "A text file with one label a line; without it, the labels in the model's \
                 metadata.",
            ),
            unset(
                "size",
                List { of: &Integer { min: 16, max: 4096 }, min: 2, max: 2, distinct: false },
                "[299, 299]",
                "Input [height, width] in pixels; without it, what the model says.",
            ),
            unset(
                "scaling",
                Choice(&["keras", "torch", "unit", "lite", "raw"]),
                "\"keras\"",
                "How a colour value x of 0 to 255 enters the model: keras x/127.5 - 1, torch \
                 with ImageNet's mean and deviation, unit x/255, lite (x - 127)/128, raw x. \
                 Without it, what the model's metadata says, else keras.",
            ),
            unset(
                "mean",
                List { of: &Number { min: -1000.0, max: 1000.0 }, min: 3, max: 3, distinct: false },
                "[123.675, 116.28, 103.53]",
                "Per channel on the scale of 0 to 255: the model sees (x - mean) / std. Goes with \
                 std, and overrides scaling.",
            ),
            unset(
                "std",
                List { of: &Number { min: 0.001, max: 1000.0 }, min: 3, max: 3, distinct: false },
                "[58.395, 57.12, 57.375]",
                "Per channel on the scale of 0 to 255; goes with mean.",
            ),
            unset(
                "colour",
                Choice(&["rgb", "bgr"]),
                "\"rgb\"",
                "Order of the model's colour channels; without it, what its metadata says, else \
                 rgb.",
            ),
            unset(
                "features",
                TEXT,
                "\"block14_sepconv2_act\"",
                "Name of the tensor that global average pooling reads; without it, it is found.",
            ),
            unset(
                "head",
                TEXT,
                "\"predictions/kernel\"",
                "Name of the linear head's weight tensor; without it, it is found.",
            ),
            key("threads", Integer { min: 0, max: 256 }, "Worker threads; 0 is one per core."),
        ],
    ),
    table(
        "classes",
        "Which classes get a map.",
        &[
            key(
                "select",
                Choice(&["top", "list", "all"]),
                "top: the most probable ones; list: those of the list below; all: every one. Best \
                 first.",
            ),
            key("top", Integer { min: 1, max: 1000 }, "How many, for top."),
            key(
                "list",
                List { of: &Class, min: 0, max: 1000, distinct: true },
                "Labels or indices (from 0), for list.",
            ),
            key("enter", SHARE, "A class gets a map when its probability reaches this ..."),
            key(
                "leave",
                SHARE,
                "... and loses it when its probability falls below this, so that labels do not \
                 flicker. At most enter. If no class is left, the best one has a map.",
            ),
        ],
    ),
    table(
        "tta",
        "Test-time augmentation: each frame is seen in several views whose maps are merged.",
        &[
            key(
                "scales",
                List { of: &Number { min: 0.25, max: 4.0 }, min: 1, max: 16, distinct: true },
                "Sizes of the views, as multiples of the model's input. Cost grows with the \
                 square.",
            ),
            key("hflip", Boolean, "Add each view's mirror image."),
            key(
                "merge",
                Choice(&["mean", "keras"]),
                "mean gives every view the same weight; keras does as keras-explainable 0.0.2 \
                 does and needs the complete set of views.",
            ),
        ],
    ),
    table(
        "tta.budget",
        "What a frame may cost. With nothing set here every frame gets all its views; see \
         docs/tta.md.",
        &[
            unset(
                "budget_ms",
                Integer { min: 1, max: 600_000 },
                "150",
                "Wall time from decoded frame to merged map, in ms. The view at scale 1 always \
                 finishes.",
            ),
            unset(
                "cpu_percent",
                Number { min: 1.0, max: 25_600.0 },
                "100",
                "Share of the processor that inference may take over time; 100 is one core.",
            ),
            unset(
                "gmacs_per_s",
                Number { min: 0.001, max: 1_000_000.0 },
                "20",
                "Billions of multiply-accumulates per second of wall time.",
            ),
            key(
                "order",
                List { of: &Text { max_bytes: 16 }, min: 0, max: 32, distinct: true },
                "Views by value per cost, such as [\"0.5f\", \"1.5\"] (f: mirrored). Views that are \
                 not named here come after these, in the built-in order.",
            ),
        ],
    ),
    table(
        "tta.rolling",
        "On a still scene the further views are spread over the frames that follow, and their \
         maps are kept until time or change makes them worthless.",
        &[
            key("enabled", Boolean, "Needs scale 1 among the scales."),
            key(
                "share",
                Number { min: 0.05, max: 16.0 },
                "What further views may cost per frame on average, in views of scale 1.",
            ),
            key(
                "max_age_s",
                Number { min: 0.1, max: 3600.0 },
                "A kept view older than this counts for nothing.",
            ),
            key(
                "change_levels",
                Number { min: 1.0, max: 100.0 },
                "A region that changed by so many levels of brightness (of 255) keeps nothing.",
            ),
            key(
                "cut_percent",
                Number { min: 1.0, max: 100.0 },
                "When more than this share of the picture changed, it is another scene: all kept \
                 views are dropped.",
            ),
        ],
    ),
    table(
        "tta.gate",
        "Frames that have not changed are not inferred again, and sure decisions cost less. Off \
         unless set.",
        &[
            unset(
                "unchanged_levels",
                Number { min: 0.5, max: 50.0 },
                "2",
                "A frame is compared with the last frame that the model saw. If its brightness (0 to \
                 255) differs by less than this everywhere, the model does not run, and the last \
                 heatmap is published again. 2 is above the noise of most cameras.",
            ),
            key(
                "max_age_s",
                Number { min: 0.0, max: 3600.0 },
                "No heatmap is published again for longer than this.",
            ),
            key(
                "usual_percent",
                Number { min: 1.0, max: 100.0 },
                "Share of the budget of a frame whose decision is neither sure nor unsure.",
            ),
            unset(
                "sure_margin",
                SHARE,
                "0.5",
                "A decision is sure when the best probability less the second is at least this ...",
            ),
            key(
                "sure_frames",
                Integer { min: 1, max: 1000 },
                "... for so many frames in a row with the same best class.",
            ),
            key("sure_percent", Number { min: 0.0, max: 100.0 }, "Share of the budget when sure."),
            unset(
                "unsure_entropy",
                SHARE,
                "0.5",
                "A decision is unsure, and gets all of the budget, when the probabilities' entropy \
                 is at least this share of a uniform guess's.",
            ),
        ],
    ),
    table(
        "tta.thermal",
        "What to do when the board is hot: the budget of a frame is made smaller, step by step, \
         and larger again when the board has cooled down. Without a budget, the number of views \
         is changed in the same way.",
        &[
            unset(
                "sensor",
                Text { max_bytes: 64 },
                "\"hottest\"",
                "Type of a thermal zone such as cpu-thermal (salientd doctor lists them), name of a \
                 hwmon chip such as coretemp, or hottest for all of them. Without it heat does \
                 not matter.",
            ),
            key(
                "hot_celsius",
                Number { min: 30.0, max: 120.0 },
                "From here on, or when the kernel caps the processor's frequency, the budget \
                 shrinks ...",
            ),
            key(
                "cool_celsius",
                Number { min: 20.0, max: 119.0 },
                "... and from here down it grows back; in between it stays. Below hot_celsius.",
            ),
            key(
                "step_percent",
                Number { min: 1.0, max: 100.0 },
                "What a step takes, of the whole budget.",
            ),
            key("floor_percent", Number { min: 0.0, max: 100.0 }, "The least that is left of it."),
            key("hold_s", Number { min: 0.1, max: 600.0 }, "Time between two steps."),
        ],
    ),
    table(
        "heatmap",
        "From the model's features to a map.",
        &[
            key(
                "method",
                Choice(&[
                    "cam",
                    "gradcam",
                    "gradcam++",
                    "layercam",
                    "xgradcam",
                    "eigencam",
                    "ablationcam",
                    "scorecam",
                ]),
                "Which kind of map; see docs/methods.md. All but scorecam need one pass per view; scorecam \
                 needs many more.",
            ),
            key(
                "filter",
                Choice(&[
                    "none",
                    "normalize",
                    "positive",
                    "positive_normalize",
                    "absolute_normalize",
                    "negative",
                    "negative_normalize",
                ]),
                "What is done to each merged map; the normalized ones span 0 to 1.",
            ),
        ],
    ),
    table(
        "overlay",
        "How pictures for people are drawn.",
        &[
            key(
                "colormap",
                Choice(&["turbo", "viridis", "inferno", "jet", "grey"]),
                "Colours from cold to hot.",
            ),
            key(
                "alpha",
                SHARE,
                "Opacity of the hottest point; cooler points are more transparent.",
            ),
            key(
                "upsample",
                Choice(&["bilinear", "guided"]),
                "How the map becomes as fine as the picture: smoothly, or along the picture's \
                 edges (guided filter). What is published is not changed by it.",
            ),
            unset(
                "box_threshold",
                SHARE,
                "0.5",
                "Draw a box around each region above this threshold; without it, none.",
            ),
            key(
                "threshold",
                Choice(&["share", "percentile", "otsu"]),
                "What box_threshold is. share: a share of the map's maximum. percentile: the share of \
                 the map that lies below the threshold. otsu: only switches the boxes on; the \
                 threshold is found by Otsu's method.",
            ),
            key("contours", Boolean, "With the boxes, draw the outline of each region."),
            key("label", Boolean, "Write the class and its probability."),
        ],
    ),
    table(
        "privacy",
        "What of the camera's pictures leaves the process; see SECURITY.md.",
        &[key(
            "pictures",
            Choice(&["whole", "blurred", "none"]),
            "What every sink gets to draw heatmaps on: the picture, its mean colours in 12 squares \
             along the shorter side, or plain grey.",
        )],
    ),
    repeated(
        "zones",
        32,
        "A named part of the picture. Every heatmap says which share of its positive values lies \
         in each zone; see docs/zones.md.",
        &[
            required(
                "name",
                Name,
                "The zone's name in messages, metrics, MQTT topics and the environment of \
                 commands.",
            ),
            required(
                "polygon",
                List { of: &POINT, min: 3, max: 64, distinct: false },
                "Corners [x, y] in fractions of the upright picture's width and height, from the \
                 top left. The last joins the first; sides may not cross.",
            ),
        ],
    ),
    repeated(
        "rules",
        64,
        "When too much of a map lies inside or outside of a zone, an event goes to every sink; see \
         docs/zones.md. The share is that of the map's positive values.",
        &[
            required("name", Name, "The rule's name in events, metrics and MQTT topics."),
            required("zone", Name, "The name of one of the zones."),
            key(
                "side",
                Choice(&["inside", "outside"]),
                "Which side of the zone the share is taken of.",
            ),
            unset(
                "class",
                Class,
                "3",
                "The class whose map is looked at. Without it: the best class of each heatmap. While \
                 the class has no map, the share counts as 0; [classes] says which classes have \
                 one.",
            ),
            key("above", SHARE, "The rule is raised when the share has been at least this ..."),
            key("for_s", Number { min: 0.0, max: 86_400.0 }, "... for so many seconds on end ..."),
            key(
                "below",
                SHARE,
                "... and cleared when it falls below this, so that it does not flicker. At most \
                 above.",
            ),
            key(
                "command",
                List { of: &PATH, min: 0, max: 64, distinct: false },
                "Program and arguments to run when the rule is raised or cleared, without a shell; \
                 docs/zones.md lists its environment. Empty: none.",
            ),
            key(
                "command_timeout_s",
                Number { min: 0.1, max: 600.0 },
                "A command that takes longer is killed.",
            ),
        ],
    ),
    optional(
        "mean",
        "The long-term mean heatmap of each class, which shows drift; see docs/zones.md.",
        &[
            key(
                "time_constant_s",
                Number { min: 1.0, max: 31_536_000.0 },
                "How slowly the mean changes: what was seen so many seconds ago counts 1/e (37 %) of \
                 what is seen now. Only time in which the class had a map is counted.",
            ),
            key("path", PATH, "The file that keeps the means over restarts."),
            key(
                "save_every_s",
                Number { min: 1.0, max: 86_400.0 },
                "Seconds between two writes of the file; it is also written when the daemon stops.",
            ),
        ],
    ),
    table("sink", "Where heatmaps go. Each kind has a table; without its table it is off.", &[]),
    optional(
        "sink.socket",
        "A Unix stream socket for any number of local clients; the protocol is in \
         docs/protocol.md.",
        &[
            // sockaddr_un holds 108 bytes with the NUL (unix(7)).
            key("path", Text { max_bytes: 107 }, "Where the socket appears."),
            key("mode", FileMode, "File mode of the socket: who may connect."),
            key("max_clients", Integer { min: 1, max: 1024 }, "Further clients are turned away."),
            key(
                "queue",
                Integer { min: 1, max: 1024 },
                "Messages kept for a client that does not read; then the oldest is dropped and \
                 counted.",
            ),
        ],
    ),
    optional(
        "sink.files",
        "Pictures and arrays in a folder, kept within a count and a size.",
        &[
            key("dir", PATH, "The folder; it is made if it is not there."),
            key(
                "write",
                List {
                    of: &Choice(&[
                        "overlay-png",
                        "overlay-jpeg",
                        "heatmap-png",
                        "npy",
                        "mean-png",
                        "mean-npy",
                        "jsonl",
                    ]),
                    min: 0,
                    max: 7,
                    distinct: true,
                },
                "What is written each time. mean-png and mean-npy are of the long-term means, \
                 see [mean].",
            ),
            key(
                "when",
                Choice(&["every-frame", "interval", "class-change"]),
                "Which heatmaps are written: every one, one every so many seconds, or one each time the \
                 best class is another.",
            ),
            key(
                "every_s",
                Number { min: 0.1, max: 86_400.0 },
                "For interval: seconds between two heatmaps.",
            ),
            key(
                "max_files",
                Integer { min: 1, max: 10_000_000 },
                "Above this many files the oldest are deleted.",
            ),
            key(
                "max_mib",
                Integer { min: 1, max: 1_048_576 },
                "Above this size in MiB the oldest files are deleted.",
            ),
            unset(
                "max_age_days",
                Number { min: 0.01, max: 36_500.0 },
                "30",
                "Files in which everything is older are deleted; without it, age does not matter.",
            ),
        ],
    ),
    optional(
        "sink.files.clip",
        "A film (motion JPEG, AVI) of the overlays around an event, kept with the other files. \
         Every overlay is encoded for it, event or not.",
        &[
            key(
                "on",
                List { of: &Choice(&["rule", "class", "score"]), min: 1, max: 3, distinct: true },
                "A rule is raised, a class gets a map that had none, or a class's probability \
                 reaches the score.",
            ),
            unset("class", Class, "3", "For class and score, the one meant; without it, any."),
            key("score", SHARE, "The probability, for score."),
            key(
                "pre_s",
                Number { min: 0.0, max: 600.0 },
                "Seconds before the event; at most 32 MiB of them.",
            ),
            key("post_s", Number { min: 0.0, max: 600.0 }, "Seconds after it."),
            key(
                "max_s",
                Number { min: 1.0, max: 3600.0 },
                "The longest that a clip may be, in seconds. Another event during a clip makes the \
                 clip longer, up to this. A clip also ends when it has a quarter of max_mib, or \
                 256 MiB.",
            ),
        ],
    ),
    optional(
        "sink.mqtt",
        "An MQTT 3.1.1 broker, for fleets and Home Assistant; topics, sizes and sandbox in \
         docs/fleet.md. The packaged service needs the drop-in network.conf for it.",
        &[
            key("host", Text { max_bytes: 253 }, "Name or address of the broker."),
            key("port", Integer { min: 1, max: 65_535 }, "Usually 1883, or 8883 with TLS."),
            unset(
                "device",
                Name,
                "\"gate-3\"",
                "The name of this device in the topics. The broker knows the connection as \
                 TOPIC-DEVICE: no two daemons may have the same. Without it: the host name.",
            ),
            key("topic", Name, "First part of every topic: TOPIC/DEVICE/heatmap and so on."),
            key(
                "every_s",
                Number { min: 0.0, max: 86_400.0 },
                "Seconds between two heatmaps; a heatmap with another best class is sent at once. 0: \
                 every heatmap.",
            ),
            key(
                "qos",
                IntegerOf(&[0, 1]),
                "0: a message may get lost with its connection. 1: it is sent until the broker \
                 has it. Events and states always have 1.",
            ),
            unset(
                "picture_every_s",
                Number { min: 0.1, max: 86_400.0 },
                "60",
                "Seconds between two small pictures with the map drawn; without it, none.",
            ),
            key("picture_format", Choice(&["png", "jpeg"]), "jpeg is about a sixth as large."),
            key(
                "picture_width_px",
                Integer { min: 16, max: 1920 },
                "Width of the picture; smaller ones stay as they are.",
            ),
            unset(
                "discovery_prefix",
                Name,
                "\"homeassistant\"",
                "Home Assistant's discovery prefix: homeassistant, unless it was changed there. Without \
                 it, Home Assistant is told nothing.",
            ),
            unset("username", TEXT, "\"camera\"", "User name, for a broker that asks for one."),
            unset(
                "password_file",
                PATH,
                "\"/run/credentials/salientd.service/mqtt-password\"",
                "A file with the password on its first line. Goes with username.",
            ),
            key("tls", Boolean, "Encrypt the connection, and check the broker's certificate."),
            unset(
                "ca_file",
                PATH,
                "\"/etc/salientd/ca.pem\"",
                "Certificates of the authorities that may vouch for the broker, in PEM; without it, \
                 those of the system.",
            ),
            unset(
                "client_cert_file",
                PATH,
                "\"/etc/salientd/client.pem\"",
                "This device's certificate chain in PEM, for a broker that asks. Goes with \
                 client_key_file.",
            ),
            unset(
                "client_key_file",
                PATH,
                "\"/run/credentials/salientd.service/mqtt-key\"",
                "The key of client_cert_file, in PEM.",
            ),
            key(
                "keep_alive_s",
                Integer { min: 5, max: 3600 },
                "In seconds: when nothing else was sent for so long, the daemon tells the broker that \
                 it is there. If the broker hears nothing for one and a half times as long, it \
                 publishes offline.",
            ),
            key(
                "queue",
                Integer { min: 1, max: 65_536 },
                "Messages kept while the broker is away; then the oldest is dropped and counted.",
            ),
        ],
    ),
    optional(
        "sink.v4l2",
        "A virtual camera (v4l2loopback), so that any program that opens cameras shows the \
         overlay; see docs/cameras.md.",
        &[key("device", PATH, "The output node, made by loading v4l2loopback.")],
    ),
    optional(
        "sink.http",
        "The live page with its streams, and metrics: docs/http.md.",
        &[
            key(
                "listen",
                Listen,
                "Where to listen. \"systemd\": on the socket that systemd opens and hands to the \
                 daemon under the name http (salientd-http.socket). The packaged service has no \
                 network, so there an IP address works only with the drop-in network.conf.",
            ),
            key("mode", FileMode, "File mode of a Unix socket: who may connect."),
            unset(
                "token_file",
                PATH,
                "\"/etc/salientd/http.token\"",
                "A file whose first line every request must carry, as a bearer token or as the \
                 password of basic authentication. Without it everybody who can connect may look.",
            ),
            key(
                "max_connections",
                Integer { min: 4, max: 1024 },
                "Further connections are turned away. Streams may hold three quarters of them.",
            ),
            key(
                "max_fps",
                Number { min: 0.1, max: 120.0 },
                "Pictures a second in a stream, where the camera gives as many.",
            ),
            key("jpeg_quality", Integer { min: 1, max: 100 }, "Of the streams and snapshots."),
            key(
                "stale_s",
                Number { min: 0.1, max: 86_400.0 },
                "Without a heatmap for longer than this, /healthz answers 503.",
            ),
        ],
    ),
    table(
        "log",
        "What is said on standard error, and in the journal.",
        &[key(
            "level",
            Choice(&["error", "warn", "info", "debug", "trace"]),
            "The least important messages still shown. The environment variable RUST_LOG \
             overrides it.",
        )],
    ),
];

/// The table with this dotted path.
pub fn find_table(path: &str) -> Option<&'static Table> {
    SCHEMA.iter().find(|t| t.path == path)
}

/// The key with this dotted path, such as `camera.v4l2.width`.
pub fn find_key(path: &str) -> Option<&'static Key> {
    let (table, name) = path.rsplit_once('.')?;
    find_table(table)?.keys.iter().find(|k| k.name == name)
}

/// The names that may stand in a table: its keys, and the tables right below it.
/// The empty path is the top of the file.
pub fn names_in(path: &str) -> Vec<&'static str> {
    let keys = find_table(path).into_iter().flat_map(|t| t.keys).map(|k| k.name);
    let below = SCHEMA.iter().filter_map(|t| match t.path.rsplit_once('.') {
        Some((parent, name)) if parent == path => Some(name),
        None if path.is_empty() => Some(t.path),
        _ => None,
    });
    keys.chain(below).collect()
}

impl Kind {
    /// What is allowed, as it stands after "allowed" in an error and in the manual.
    pub fn allowed(&self) -> String {
        match self {
            Boolean => "true or false".into(),
            Integer { min, max } => format!("an integer from {min} to {max}"),
            IntegerOf(values) => any_of(values),
            Number { min, max } => format!("a number from {min} to {max}"),
            Text { max_bytes } => format!("a text of 1 to {max_bytes} bytes"),
            Choice(values) => any_of(&values.iter().map(|v| format!("{v:?}")).collect::<Vec<_>>()),
            FileMode => "an octal file mode from \"0000\" to \"0777\"".into(),
            Listen => "an IP address and port such as \"127.0.0.1:8088\", \"unix:/PATH\" or \
                       \"systemd\""
                .into(),
            Class => "a label or an index from 0".into(),
            Name => "1 to 64 letters, digits, - and _".into(),
            List { of, min, max, .. } if min == max => {
                format!("{min} values, each {}", of.allowed())
            }
            List { of, min, max, .. } => format!("{min} to {max} values, each {}", of.allowed()),
            IntegerMap => "a table of names in snake case and integers".into(),
        }
    }
}

/// `a, b or c`.
pub(super) fn any_of<T: std::fmt::Display>(values: &[T]) -> String {
    match values {
        [] => String::new(),
        [only] => only.to_string(),
        [head @ .., last] => {
            let head: Vec<_> = head.iter().map(T::to_string).collect();
            format!("{} or {last}", head.join(", "))
        }
    }
}
