//! The token bucket filter: what leaves a link does so at a rate, and what has to wait does so in a queue of a limited
//! length.
//!
//! The kernel has two ways to be told the size of the bucket. The old one is the time that it takes to send a full one,
//! in ticks; that is what the kernel shows, and what the reference writes and compares, so it is written where it fits.
//! Its 32 bits end at 275 s. The newer one (Linux 3.14) is bytes.
//!
//! Source: linux/pkt_sched.h, net/sched/sch_tbf.c.

use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_REPLACE, NlasIterator};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcOption};

use super::{OURS, Qdisc, about, message, remove_root, root};
use crate::error::{Error, Result};
use crate::link;
use crate::netlink::Netlink;
use crate::undo::Undo;

pub(super) const KIND: &str = "tbf";

/// `TCA_TBF_*` of linux/pkt_sched.h.
const TCA_TBF_PARMS: u16 = 1;
const TCA_TBF_RATE64: u16 = 4;
const TCA_TBF_BURST: u16 = 6;
/// `TC_LINKLAYER_ETHERNET`: with the layer unsaid the kernel complains that there is no table of rates.
const TC_LINKLAYER_ETHERNET: u8 = 1;

/// A tick, in nanoseconds: `PSCHED_TICKS2NS(1)` of net/pkt_sched.h, and since Linux 2.6.31 the same on every machine.
const TICK: u128 = 64;
const SECOND: u128 = 1_000_000_000;

/// What a link's shaper shall be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tbf {
    /// Bytes a second.
    pub rate: u64,
    /// What may wait, in bytes.
    pub limit: u32,
    /// What may go at once.
    pub bucket: Bucket,
}

/// The size of a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bucket {
    /// The time it takes to send, in ticks of 64 ns.
    Ticks(u32),
    /// Bytes.
    Bytes(u32),
}

impl Tbf {
    /// The size of the bucket in bytes.
    pub fn burst(&self) -> u64 {
        match self.bucket {
            Bucket::Ticks(ticks) => bytes_in(ticks, self.rate),
            Bucket::Bytes(bytes) => bytes.into(),
        }
    }

    /// Whether a shaper that was read back is this one. The kernel shows the bucket in ticks alone, of which it keeps 32
    /// bits, and comes to them by a multiplication that it rounds.
    pub fn is(&self, found: &Self) -> bool {
        let same_bucket = match (self.bucket, found.bucket) {
            (Bucket::Bytes(bytes), Bucket::Ticks(ticks)) => {
                let expected = u128::from(bytes) * SECOND / TICK / u128::from(self.rate.max(1));
                let apart = (low_bits(expected).wrapping_sub(ticks)).cast_signed().unsigned_abs();
                u128::from(apart) <= expected / 1024 + 2
            }
            (wanted, found) => wanted == found,
        };
        self.rate == found.rate && self.limit == found.limit && same_bucket
    }

    fn options(&self) -> Vec<TcOption> {
        let mut options = vec![(TCA_TBF_PARMS, self.parameters())];
        if u32::try_from(self.rate).is_err() {
            options.push((TCA_TBF_RATE64, self.rate.to_ne_bytes().to_vec()));
        }
        if let Bucket::Bytes(bytes) = self.bucket {
            options.push((TCA_TBF_BURST, bytes.to_ne_bytes().to_vec()));
        }
        options.into_iter().map(|(kind, value)| TcOption::Other(DefaultNla::new(kind, value))).collect()
    }

    /// `struct tc_tbf_qopt`: the rate and no peak rate (a `struct tc_ratespec` each), limit, ticks, no MTU.
    fn parameters(&self) -> Vec<u8> {
        let ticks = match self.bucket {
            Bucket::Ticks(ticks) => ticks,
            Bucket::Bytes(_) => 0,
        };
        let rate = u32::try_from(self.rate).unwrap_or(u32::MAX);
        let mut bytes = vec![0, TC_LINKLAYER_ETHERNET, 0, 0, 0, 0, 0, 0];
        bytes.extend(rate.to_ne_bytes());
        bytes.extend([0; 12]);
        bytes.extend(self.limit.to_ne_bytes());
        bytes.extend(ticks.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes
    }

    /// Of the options of a tbf; `None` where they are not what a kernel sends.
    fn read(options: &[u8]) -> Option<Self> {
        let mut tbf = Self { rate: 0, limit: 0, bucket: Bucket::Ticks(0) };
        let mut rate64 = None;
        for option in NlasIterator::new(options).map_while(std::result::Result::ok) {
            match option.kind() {
                TCA_TBF_PARMS => {
                    let word = |at: usize| -> Option<u32> {
                        Some(u32::from_ne_bytes(option.value().get(at..at + 4)?.try_into().ok()?))
                    };
                    tbf.rate = word(8)?.into();
                    tbf.limit = word(24)?;
                    tbf.bucket = Bucket::Ticks(word(28)?);
                }
                TCA_TBF_RATE64 => rate64 = Some(u64::from_ne_bytes(option.value().try_into().ok()?)),
                _ => {}
            }
        }
        tbf.rate = rate64.unwrap_or(tbf.rate);
        (tbf.rate != 0).then_some(tbf)
    }
}

/// What can be sent in so many ticks, in bytes.
pub fn bytes_in(ticks: u32, rate: u64) -> u64 {
    u64::try_from(u128::from(ticks) * TICK * u128::from(rate) / SECOND).unwrap_or(u64::MAX)
}

/// The shaper at a link's root, where there is one of whatever owner.
///
/// # Errors
/// The kernel's refusal.
pub fn get(nl: &mut Netlink, index: u32) -> Result<Option<Tbf>> {
    Ok(root(nl, index)?.and_then(|qdisc| read(&qdisc)))
}

fn read(qdisc: &Qdisc) -> Option<Tbf> {
    if qdisc.kind == KIND { Tbf::read(&qdisc.options) } else { None }
}

/// Makes `tbf` the shaper at a link's root, in place of the kernel's own queueing discipline or of an earlier shaper of
/// ours. What waits in that one goes on waiting.
///
/// # Errors
/// Somebody else's queueing discipline is there; the kernel's refusal.
pub fn ensure(nl: &mut Netlink, index: u32, tbf: &Tbf, undo: &mut Undo<'_>) -> Result<()> {
    let _step = libcni::log::step("shaper");
    let found = root(nl, index)?.filter(|qdisc| !qdisc.is_default());
    if let Some(foreign) = found.as_ref().filter(|qdisc| !qdisc.is_ours()) {
        let doing = format!("shape link {}", link::describe(nl, index));
        let handle = format!("{:x}:", foreign.handle.major);
        return Err(Error::other(
            doing,
            format!("its root qdisc is {} {handle}, which somebody else set", foreign.kind),
        ));
    }
    let before = found.as_ref().and_then(read);
    if found.is_some() && before.is_none() {
        // An htb: the kernel does not turn one kind into another under the same handle.
        remove_root(nl, index)?;
    }
    set(nl, index, tbf)?;
    undo.push("set the shaper back", move || {
        let mut nl = Netlink::open()?;
        match before {
            Some(before) => set(&mut nl, index, &before),
            None => remove_root(&mut nl, index).map(drop),
        }
    });
    Ok(())
}

fn set(nl: &mut Netlink, index: u32, tbf: &Tbf) -> Result<()> {
    let mut request = message(index, TcHandle::ROOT);
    request.header.handle = OURS;
    request.attributes = vec![TcAttribute::Kind(KIND.to_owned()), TcAttribute::Options(tbf.options())];
    let result = nl.socket.request(RouteNetlinkMessage::NewQueueDiscipline(request), NLM_F_CREATE | NLM_F_REPLACE);
    result.map_err(|failure| about(nl, index, failure, &format!("shape to {} bytes a second the", tbf.rate)))
}

/// The low 32 bits.
fn low_bits(number: u128) -> u32 {
    let [a, b, c, d, ..] = number.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_and_bytes() {
        // 100 kB at 1 MB/s take 0.1 s.
        assert_eq!(bytes_in(1_562_500, 1_000_000), 100_000);
        assert_eq!(bytes_in(u32::MAX, u64::MAX), u64::MAX);
        let wanted = Tbf { rate: 1000, limit: 5, bucket: Bucket::Bytes(1_000_000) };
        // 1000 s are 15 625 000 000 ticks, of which the kernel shows the low 32 bits.
        let shown = |ticks| Tbf { bucket: Bucket::Ticks(ticks), ..wanted };
        assert!(wanted.is(&shown(2_740_098_112)) && wanted.is(&shown(2_740_098_113)) && !wanted.is(&shown(0)));
        assert!(!Tbf { limit: 6, ..wanted }.is(&shown(2_740_098_112)));
    }

    #[test]
    fn what_is_written_is_read() {
        for rate in [1, 1_000_000, u64::from(u32::MAX), 1 << 32, 1 << 40] {
            let tbf = Tbf { rate, limit: 7, bucket: Bucket::Ticks(9) };
            let mut bytes = Vec::new();
            for option in tbf.options() {
                let mut buffer = vec![0; netlink_packet_core::Emitable::buffer_len(&option)];
                netlink_packet_core::Emitable::emit(&option, &mut buffer);
                bytes.extend(buffer);
            }
            assert_eq!(Tbf::read(&bytes), Some(tbf));
        }
        assert_eq!((Tbf::read(&[]), Tbf::read(&[1, 2, 3]), Tbf::read(&[6, 0, 1, 0, 0, 0])), (None, None, None));
    }
}
