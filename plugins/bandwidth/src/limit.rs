//! A limit, and the shaper that keeps it.
//!
//! Where the reference's arithmetic makes sense it is ours, to the tick, so that its CHECK finds what it expects:
//! a bucket of `burst` bytes, and a queue of 25 ms of the rate and one bucket. It makes none in these cases:
//!
//! - The runtime was given a rate only, and fills in a burst that is to mean "no burst": 2^31-1, 2^32-1 (containerd) or
//!   2^35-9 (CRI-O) bits. Whoever asks for a rate wants a rate: the bucket is 25 ms of it.
//! - A burst of many seconds. It is granted, but the queue is not as long: it holds what a second brings.
//! - A bucket that is smaller than a packet would let none through, and a queue of fewer than ten packets would drop
//!   most of what a TCP connection begins with (RFC 6928). Both are made as large as that.
//! - A bucket that takes longer than 275 s to fill: the reference's 32 bits overflow, ours do not.

use hostnet::link::Link;
use hostnet::tc::tbf::{self, Bucket, Tbf};
use libcni::Error;

/// A burst of so many bits or more was not asked for: the least of the numbers that runtimes fill in.
const NO_BURST: u64 = i32::MAX as u64;
/// What a packet has beside what the MTU counts: an Ethernet header and a VLAN tag.
const HEADERS: u64 = 14 + 4;
/// A TCP connection begins with so many packets.
const WINDOW: u64 = 10;

/// What may pass in one direction.
#[derive(Clone, Debug)]
pub struct Limit {
    /// Bytes a second, not 0.
    rate: u64,
    /// Bytes, as they are written.
    written_burst: u64,
    /// Bytes, if somebody asked for them.
    burst: Option<u64>,
}

impl Limit {
    /// From bits a second, at least 8, and bits, less than 2^35.
    pub fn of_bits(rate: u64, burst: u64) -> Self {
        let written_burst = burst / 8;
        Self { rate: rate / 8, written_burst, burst: (burst < NO_BURST).then_some(written_burst) }
    }

    /// The shaper for a link of this MTU.
    pub fn tbf(&self, mtu: u32) -> Tbf {
        let packet = packet(mtu);
        let window = WINDOW * packet;
        let burst = match self.burst {
            Some(burst) => burst.max(packet),
            None => self.latency().max(window),
        };
        let waiting = self.latency().saturating_add(burst.min(self.rate.max(window)));
        Tbf { rate: self.rate, limit: saturated(waiting.max(window)), bucket: self.bucket(burst, packet) }
    }

    /// Compares a shaper with what it shall be. What the reference made of the same limit passes too, if packets pass.
    ///
    /// # Errors
    /// What differs.
    pub fn check(&self, found: &Tbf, link: &Link) -> Result<(), Error> {
        let wanted = self.tbf(link.mtu);
        let name = &link.name;
        if found.rate != wanted.rate {
            let msg = format!("Rate doesn't match: {name} has {} bytes a second, not {}", found.rate, wanted.rate);
            return Err(Error::internal(msg));
        }
        if wanted.is(found) {
            return Ok(());
        }
        if self.is_the_references(found) {
            return passes_packets(found, link);
        }
        let of_reference = self.reference_limit();
        if found.limit != wanted.limit && found.limit != of_reference {
            let msg = format!("Limit doesn't match: {name} has {} bytes, not {}", found.limit, wanted.limit);
            return Err(Error::internal(msg));
        }
        let msg =
            format!("Buffer doesn't match: {name} has a burst of {} bytes, not {}", found.burst(), wanted.burst());
        Err(Error::internal(msg))
    }

    /// What the rate sends in the 25 ms that the reference lets packets wait.
    fn latency(&self) -> u64 {
        self.rate / 40
    }

    /// In ticks, if they can say it.
    fn bucket(&self, burst: u64, packet: u64) -> Bucket {
        let ticks = self.ticks(burst).and_then(|ticks| u32::try_from(ticks).ok());
        match ticks.filter(|ticks| tbf::bytes_in(*ticks, self.rate) >= packet) {
            Some(ticks) => Bucket::Ticks(ticks),
            None => Bucket::Bytes(saturated(burst)),
        }
    }

    /// The time it takes to send `burst` bytes, as tc(8) and the reference count it: in whole microseconds, and of them
    /// 15.625 ticks each.
    fn ticks(&self, burst: u64) -> Option<u64> {
        let microseconds = burst.checked_mul(1_000_000)?.checked_div(self.rate)?;
        Some(microseconds.checked_mul(125)? / 8)
    }

    /// The length of the queue in the reference's 32 bits.
    fn reference_limit(&self) -> u32 {
        saturated(self.latency().wrapping_add(self.written_burst) & u64::from(u32::MAX))
    }

    fn is_the_references(&self, found: &Tbf) -> bool {
        let ticks = self.ticks(self.written_burst).and_then(|ticks| u32::try_from(ticks).ok());
        // What an overflow makes of it depends on the processor.
        let bucket = ticks.is_none_or(|ticks| found.bucket == Bucket::Ticks(ticks));
        bucket && found.limit == self.reference_limit()
    }
}

/// Whether the largest packet of a link fits into bucket and queue; else all such are dropped.
fn passes_packets(found: &Tbf, link: &Link) -> Result<(), Error> {
    // No tag is counted here, and the bucket was rounded down: it must only be no obstacle.
    let (packet, least) = (packet(link.mtu), u64::from(link.mtu));
    if found.burst() >= least && u64::from(found.limit) >= least {
        return Ok(());
    }
    let msg = format!(
        "Buffer doesn't match: a burst of {} bytes and a queue of {} on {} drop packets of {packet} bytes",
        found.burst(),
        found.limit,
        link.name
    );
    Err(Error::internal(msg))
}

/// The bytes of the largest packet.
fn packet(mtu: u32) -> u64 {
    u64::from(mtu) + HEADERS
}

fn saturated(bytes: u64) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MTU: u32 = 1500;

    fn tbf(rate: u64, burst: u64) -> (u64, u32, u64) {
        let tbf = Limit::of_bits(rate, burst).tbf(MTU);
        (tbf.rate, tbf.limit, tbf.burst())
    }

    /// Values of a run of the reference (`tc qdisc show`), where they make sense.
    #[test]
    fn the_references_numbers() {
        let tbf = Limit::of_bits(8_000_000, 800_000).tbf(MTU);
        assert_eq!(tbf, Tbf { rate: 1_000_000, limit: 125_000, bucket: Bucket::Ticks(1_562_500) });
        let tbf = Limit::of_bits(16_000_000, 1_600_000).tbf(MTU);
        assert_eq!(tbf, Tbf { rate: 2_000_000, limit: 250_000, bucket: Bucket::Ticks(1_562_500) });
    }

    /// B1, B2: with the reference a queue of 512 MB, and at 1 Mbit/s a burst of 21 MB.
    #[test]
    fn a_rate_alone() {
        for burst in [i32::MAX as u64, u64::from(u32::MAX), u64::from(u32::MAX) * 8 - 1] {
            assert_eq!(tbf(1_000_000, burst), (125_000, 18_305, 15_180));
            assert_eq!(tbf(100_000_000, burst), (12_500_000, 625_000, 312_500));
        }
    }

    #[test]
    fn a_burst_of_many_seconds_has_a_queue_of_one() {
        assert_eq!(tbf(8_000_000, 256_000_000), (1_000_000, 1_025_000, 32_000_000));
        // B1: 2000 s.
        assert_eq!(tbf(8000, 16_000_000), (1000, 15_205, 2_000_000));
    }

    #[test]
    fn packets_pass_at_any_rate() {
        for rate in [8, 1000, 64_000, 1 << 20, 1 << 30, 1 << 40, 1 << 63, u64::MAX] {
            for burst in [1, 8, 456, 12_000, 1 << 20, u64::from(u32::MAX) * 8 - 1] {
                let (_, limit, burst) = tbf(rate, burst);
                assert!(u64::from(limit) >= 10 * packet(MTU) && burst >= packet(MTU), "{rate}: {limit} {burst}");
            }
        }
    }
}
