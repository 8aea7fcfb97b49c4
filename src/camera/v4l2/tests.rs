use super::*;

fn config(device: &str) -> V4l2Config {
    V4l2Config { device: device.into(), ..V4l2Config::default() }
}

#[test]
fn what_cannot_be_opened_says_whether_waiting_helps() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let gone = V4l2::open(&config("/dev/video-none")).unwrap_err();
    assert!(matches!(gone, CameraError::Gone { .. }));
    assert_eq!(gone.to_string(), "/dev/video-none: no such device: not plugged in?");
    for path in ["/dev/null", file.to_str().unwrap()] {
        let unusable = V4l2::open(&config(path)).unwrap_err();
        assert!(matches!(unusable, CameraError::Unusable { .. }));
        assert_eq!(unusable.to_string(), format!("{path}: not a V4L2 device"));
    }
    let format = V4l2Config { format: "H264".into(), ..config("/dev/null") };
    assert_eq!(
        V4l2::open(&format).unwrap_err().to_string(),
        "camera.v4l2.format: \"H264\", allowed: auto, YUYV, UYVY, NV12, YU12, RGB3, BGR3, GREY, MJPG, \
         NM12, YM12"
    );
}

#[test]
fn errors_are_named_by_the_state_of_the_world() {
    for (errno, expected) in [
        (Errno::NODEV, "cam: lost: unplugged"),
        (Errno::ACCESS, "cam: lost: permission denied: is the user in the group `video`?"),
        (Errno::BUSY, "cam: lost: in use by another program"),
        (Errno::IO, "cam: lost: Input/output error (os error 5)"),
        (Errno::INVAL, "cam: lost: Invalid argument (os error 22)"),
        (Errno::NOTTY, "cam: lost: Inappropriate ioctl for device (os error 25)"),
        (
            Errno::NOSPC,
            "cam: lost: not enough USB bandwidth left: another port, a smaller size or MJPG may do",
        ),
    ] {
        let error = world("cam", "lost", &errno.into());
        assert!(matches!(error, CameraError::Gone { .. }), "{error}");
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn a_timestamp_becomes_an_age_and_nonsense_becomes_now() {
    let now = Duration::try_from(clock_gettime(ClockId::Monotonic)).unwrap();
    let recent = age(now - Duration::from_millis(500));
    assert!(recent >= Duration::from_millis(500));
    assert_eq!(age(now + Duration::from_secs(3600)), Duration::ZERO);
    assert_eq!(age(Duration::ZERO).min(MAX_FRAME_AGE), age(Duration::ZERO));
}

#[test]
fn listing_never_fails() {
    for camera in list() {
        assert!(camera.problem.is_some() || !camera.formats.is_empty(), "{camera:?}");
    }
}
