//! What a pipe camera reads: y4m, Motion JPEG or raw frames, by the input's last byte.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rustix::fs::{MemfdFlags, SeekFrom, memfd_create, seek};
use rustix::stdio::dup2_stdin;
use salientd::camera::open;
use salientd::config::{CameraConfig, CameraSource, PipeConfig, PipeFormat};
use salientd_fuzz::sound;
use std::io::Write;

/// Makes `bytes` the process's standard input, which the camera reads without a command.
fn stand_in(bytes: &[u8]) {
    let mut file = std::fs::File::from(memfd_create("input", MemfdFlags::empty()).unwrap());
    file.write_all(bytes).unwrap();
    seek(&file, SeekFrom::Start(0)).unwrap();
    dup2_stdin(&file).unwrap();
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&kind, stream)) = bytes.split_last() else { return };
    let format = [PipeFormat::Y4m, PipeFormat::Mjpeg, PipeFormat::Raw][usize::from(kind) % 3];
    let (width, height) = (1 + u32::from(kind) % 16, 1 + u32::from(kind) / 16);
    let pixel_format = "NV12".into();
    let pipe = PipeConfig { command: Vec::new(), format, width, height, pixel_format };
    let config = CameraConfig { source: CameraSource::Pipe, pipe, ..Default::default() };
    stand_in(stream);
    // Some sizes a format cannot have.
    if let Ok(mut camera) = open(&config) {
        sound::streamed(&mut *camera);
    }
});
