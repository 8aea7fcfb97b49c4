//! This process's resident memory, as the kernel accounts it (proc_pid_status(5)).

/// Has the C library give large freed blocks back to the system at once.
///
/// By default glibc raises the size from which it maps blocks separately with each one
/// that is freed (mallopt(3), M_MMAP_THRESHOLD): after the model file's buffer, all that
/// loading leaves behind would stay resident for good. Call once, before anything else.
#[allow(unsafe_code)]
pub fn return_freed_blocks() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes two integers, and no other thread runs yet.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 512 << 10);
    }
}

/// Most bytes that were ever resident: VmHWM.
pub fn peak_rss_bytes() -> Option<u64> {
    field("VmHWM:")
}

/// Bytes resident now: VmRSS.
pub fn rss_bytes() -> Option<u64> {
    field("VmRSS:")
}

fn field(name: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_peak_is_at_least_what_is_resident_now() {
        let (now, peak) = (super::rss_bytes().unwrap(), super::peak_rss_bytes().unwrap());
        assert!(now > 1 << 20 && peak >= now, "{now} {peak}");
    }
}
