//! Which addresses of a node's range its pods have.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

/// Hands out addresses in turn: one that was given back is only reused after all others, so that a packet or a gateway's
/// stale upstream for a pod that is gone meets nobody, rather than a new pod.
#[derive(Debug)]
pub(super) struct PodAddresses {
    range: Ipv4Net,
    next: u32,
    used: BTreeSet<Ipv4Addr>,
}

/// The network address and the first host address stay free, as host-local IPAM leaves them for the bridge.
const RESERVED_AT_START: u32 = 2;

impl PodAddresses {
    pub(super) fn new(range: Ipv4Net) -> Self {
        Self { range, next: 0, used: BTreeSet::new() }
    }

    pub(super) fn allocate(&mut self) -> Option<Ipv4Addr> {
        let first = u32::from(self.range.network()).checked_add(RESERVED_AT_START)?;
        let broadcast = u32::from(self.range.broadcast());
        let count = broadcast.checked_sub(first).filter(|&count| count > 0)?;
        for _ in 0..count {
            let candidate = Ipv4Addr::from(first + self.next % count);
            self.next = (self.next + 1) % count;
            if self.used.insert(candidate) {
                return Some(candidate);
            }
        }
        None
    }

    pub(super) fn release(&mut self, address: Ipv4Addr) {
        self.used.remove(&address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(range: &str) -> PodAddresses {
        PodAddresses::new(range.parse().unwrap())
    }

    #[test]
    fn a_released_address_is_the_last_to_be_reused() {
        let mut pool = addresses("10.244.3.0/29");
        let all: Vec<_> = std::iter::from_fn(|| pool.allocate()).collect();
        assert_eq!(all.first(), Some(&Ipv4Addr::new(10, 244, 3, 2)));
        assert_eq!(all.last(), Some(&Ipv4Addr::new(10, 244, 3, 6)));
        pool.release(all[0]);
        pool.release(all[3]);
        assert_eq!(pool.allocate(), Some(all[0]));
        pool.release(all[0]);
        assert_eq!(pool.allocate(), Some(all[3]), "the one released longest ago comes first");
    }

    #[test]
    fn a_range_without_room_gives_nothing() {
        assert_eq!(addresses("10.0.0.0/31").allocate(), None);
        assert_eq!(addresses("10.0.0.0/32").allocate(), None);
    }
}
