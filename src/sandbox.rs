//! What the service's sandbox refuses, told apart from what is missing or broken: the error
//! then names the drop-in that allows it. Each check looks for an error number that nothing
//! but a sandbox gives.

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType, socket};
use std::path::{Path, PathBuf};

/// Most nodes of a folder looked at.
const MAX_NODES: usize = 64;

/// Why no other machine can be reached: `RestrictAddressFamilies=` refuses the internet's
/// families altogether, which no cable that is out does. `None`: not for that reason.
pub fn without_network() -> Option<String> {
    let refused = |family: &AddressFamily| {
        socket(*family, SocketType::DGRAM, None).err() == Some(Errno::AFNOSUPPORT)
    };
    let all = [AddressFamily::INET, AddressFamily::INET6].iter().all(refused);
    all.then(|| format!("the service has no network; {}", drop_in("network.conf")))
}

/// Why libcamera finds no camera: the group of devices of the service (`DevicePolicy=`)
/// refuses the nodes that a CSI camera needs, which the mode of a file does otherwise.
pub fn without_media_devices() -> Option<String> {
    let refused = |node: PathBuf| {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        rustix::fs::open(&node, flags, Mode::empty()).err() == Some(Errno::PERM)
    };
    let mut nodes = media_nodes(Path::new("/dev")).into_iter();
    nodes.any(refused).then(|| {
        format!("the service may not open what a CSI camera needs; {}", drop_in("csi-camera.conf"))
    })
}

fn drop_in(name: &str) -> String {
    format!("install its drop-in /usr/share/salientd/drop-ins/{name}, which says how")
}

/// `media0`, … and `dma_heap/…` of a folder.
fn media_nodes(dev: &Path) -> Vec<PathBuf> {
    let list = |dir: &Path, is_meant: fn(&str) -> bool| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        let paths = entries.map(|entry| entry.path());
        let meant = paths
            .filter(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(is_meant));
        meant.take(MAX_NODES).collect()
    };
    let mut nodes = list(dev, |name| name.starts_with("media"));
    nodes.extend(list(&dev.join("dma_heap"), |_| true));
    nodes
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_csi_camera_is_media_and_heap_nodes() {
        let dev = tempfile::tempdir().unwrap();
        fs::create_dir(dev.path().join("dma_heap")).unwrap();
        for name in ["media0", "media1", "video0", "null", "dma_heap/linux,cma"] {
            fs::write(dev.path().join(name), "").unwrap();
        }
        let mut found: Vec<String> = media_nodes(dev.path())
            .iter()
            .map(|node| node.strip_prefix(dev.path()).unwrap().display().to_string())
            .collect();
        found.sort();
        assert_eq!(found, ["dma_heap/linux,cma", "media0", "media1"]);
        assert_eq!(media_nodes(&dev.path().join("none")), Vec::<PathBuf>::new());
    }

    /// What it says inside of the sandbox is checked there: tests/vm/service.
    #[test]
    fn a_network_that_may_be_used_is_not_refused() {
        socket(AddressFamily::INET, SocketType::DGRAM, None).unwrap();
        assert_eq!(without_network(), None);
        assert_eq!(
            drop_in("network.conf"),
            "install its drop-in /usr/share/salientd/drop-ins/network.conf, which says how"
        );
    }
}
