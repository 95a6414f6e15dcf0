//! Memory that a request takes while it is answered, as of applications that put their answers together in memory: what
//! they need in all grows with the number of requests under way, and a container's limit does not.

use crate::ByteSize;

/// Memory in use until this is dropped.
pub(crate) struct Held(#[expect(dead_code, reason = "what counts is that it is there")] Vec<u8>);

impl Held {
    pub(crate) fn take(size: ByteSize) -> Self {
        // Not zeros: the kernel gives a page only when it is written to, and calloc's zeros are not.
        Self(std::hint::black_box(vec![0xa5; usize::try_from(size.0).unwrap_or(usize::MAX)]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_resident() {
        let resident = || {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
            line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
        };
        let before = resident();
        let held = Held::take(ByteSize(64 << 20));
        assert!(resident() >= before + (48 << 20));
        drop(held);
        assert!(resident() < before + (32 << 20), "given back at once");
    }
}
