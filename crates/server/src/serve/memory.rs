//! What the process holds in memory, as the kernel counts it.

/// Resident bytes of this process; 0 where the kernel does not say.
pub fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm
        .split_ascii_whitespace()
        .nth(1)
        .and_then(|pages| pages.parse().ok())
        .unwrap_or(0);
    // `statm` counts in pages of 4 KiB on every machine Mainstem is built for.
    pages * 4096
}
