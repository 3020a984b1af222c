//! `cnitool ipam list`: who has which address, since when, and whether he lives.

use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;
use std::time::SystemTime;

use serde_json::{Value, json};

use super::attachments::{Key, Known, Verdict};
use super::entry::addresses;
use super::leases::Holder;
use super::networks::Network;

/// The longest container id that is shown whole in the table: `cnitool-` and 20 digits fit.
const ID_MAX: usize = 32;
/// How much of a longer one is shown, which is what people call a pod by.
const ID_SHOWN: usize = 13;

/// An address that somebody has.
struct Row {
    network: String,
    address: IpAddr,
    container: Option<String>,
    ifname: Option<String>,
    written: Option<SystemTime>,
    verdict: Verdict,
    /// The lease, or nothing: then only a runtime's cache has it, as of other IPAM plugins.
    file: Option<String>,
}

/// A range set, and how much of it is given out.
struct Usage {
    network: String,
    range: String,
    size: u128,
    used: u128,
}

/// What is listed.
pub struct Listing {
    rows: Vec<Row>,
    ranges: Vec<Usage>,
}

impl Listing {
    /// That of these networks.
    pub fn of(known: &Known, is_wanted: &dyn Fn(&str) -> bool) -> Self {
        let mut rows: Vec<Row> = Vec::new();
        let mut listed: HashSet<(Key, IpAddr)> = HashSet::new();
        for lease in known.leases.iter().filter(|lease| is_wanted(&lease.network)) {
            let (container, ifname) = match &lease.holder {
                Holder::Attachment { container, ifname } => (Some(container.clone()), ifname.clone()),
                Holder::Empty | Holder::Unreadable(_) => (None, None),
            };
            listed.extend(known.key(lease).map(|key| (key, lease.address)));
            let (network, file) = (lease.network.clone(), Some(lease.file.display().to_string()));
            let verdict = known.judge_lease(lease);
            rows.push(Row {
                network,
                address: lease.address,
                container,
                ifname,
                written: lease.written,
                verdict,
                file,
            });
        }
        for entry in known.remembered.entries.iter().filter(|entry| is_wanted(entry.network.as_str())) {
            let key = Key::of(entry);
            for address in addresses(entry) {
                if !listed.contains(&(key.clone(), address)) {
                    rows.push(Row {
                        network: key.network.clone(),
                        address,
                        container: Some(key.container.clone()),
                        ifname: Some(key.ifname.clone()),
                        written: None,
                        verdict: known.judge_entry(entry),
                        file: None,
                    });
                }
            }
        }
        rows.sort_by(|one, other| (&one.network, one.address).cmp(&(&other.network, other.address)));
        let networks = known.networks.all.iter().filter(|network| is_wanted(network.name()));
        Self { rows, ranges: networks.flat_map(|network| usage(known, network)).collect() }
    }

    /// For people: two tables. Nothing to show is said in words.
    pub fn text(&self, now: SystemTime) -> String {
        let mut rows = vec![["NETWORK", "ADDRESS", "CONTAINER", "INTERFACE", "AGE", "STATE"].map(str::to_owned)];
        rows.extend(self.rows.iter().map(|row| {
            [
                row.network.clone(),
                row.address.to_string(),
                row.container.as_deref().map_or("-".to_owned(), shortened),
                row.ifname.clone().unwrap_or_else(|| "-".to_owned()),
                row.written
                    .and_then(|written| now.duration_since(written).ok())
                    .map_or("-".to_owned(), |age| in_words(age.as_secs())),
                format!("{}: {}", row.verdict.state.as_str(), row.verdict.why),
            ]
        }));
        let mut text = if self.rows.is_empty() { "no addresses are given out\n".to_owned() } else { table(&rows) };
        if !self.ranges.is_empty() {
            let mut rows = vec![["NETWORK", "RANGE", "SIZE", "USED", "FREE"].map(str::to_owned)];
            rows.extend(self.ranges.iter().map(|one| {
                let (size, used, free) = (one.size, one.used, one.size.saturating_sub(one.used));
                [one.network.clone(), one.range.clone(), size.to_string(), used.to_string(), free.to_string()]
            }));
            text.push('\n');
            text.push_str(&table(&rows));
        }
        text
    }

    /// For machines.
    pub fn json(&self, now: SystemTime) -> Value {
        let seconds = |time: SystemTime| {
            time.duration_since(SystemTime::UNIX_EPOCH).map(|since| since.as_secs()).unwrap_or_default()
        };
        let rows = self.rows.iter().map(|row| {
            json!({
                "network": row.network,
                "address": row.address,
                "container": row.container,
                "interface": row.ifname,
                "written": row.written.map(seconds),
                "ageSeconds": row.written.and_then(|written| now.duration_since(written).ok()).map(|age| age.as_secs()),
                "state": row.verdict.state.as_str(),
                "why": row.verdict.why,
                "file": row.file,
            })
        });
        // Nobody has more addresses than fit in a number of JSON that every reader keeps; a range may.
        let count = |count: u128| u64::try_from(count.min(1 << 53)).unwrap_or_default();
        let ranges = self.ranges.iter().map(|one| {
            json!({
                "network": one.network,
                "range": one.range,
                "size": count(one.size),
                "used": count(one.used),
                "free": count(one.size.saturating_sub(one.used)),
            })
        });
        json!({ "addresses": rows.collect::<Vec<_>>(), "ranges": ranges.collect::<Vec<_>>() })
    }
}

fn usage(known: &Known, network: &Network) -> Vec<Usage> {
    let in_directory = |file: &std::path::Path| network.directories.iter().any(|dir| file.parent() == Some(dir));
    let taken: BTreeSet<IpAddr> =
        known.leases.iter().filter(|lease| in_directory(&lease.file)).map(|lease| lease.address).collect();
    let of_set = |set: &host_local::range::RangeSet| Usage {
        network: network.name().to_owned(),
        range: set.to_string(),
        size: set.size(),
        used: taken.iter().filter(|address| set.contains(**address) && !set.is_gateway(**address)).count() as u128,
    };
    network.sets.iter().map(of_set).collect()
}

fn shortened(id: &str) -> String {
    if id.len() <= ID_MAX { id.to_owned() } else { format!("{}...", id.chars().take(ID_SHOWN).collect::<String>()) }
}

/// The largest two units.
fn in_words(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{}s", seconds % 60),
        (0, _, _) => format!("{hours}h{}m", minutes % 60),
        _ => format!("{days}d{}h", hours % 24),
    }
}

/// Columns as wide as what is in them; the last is not filled up.
fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..N).map(|column| width(column).unwrap_or_default()).collect();
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages() {
        for (seconds, words) in [(0, "0s"), (59, "59s"), (61, "1m1s"), (3_660, "1h1m"), (90_000, "1d1h")] {
            assert_eq!(in_words(seconds), words);
        }
    }

    #[test]
    fn columns_are_as_wide_as_addresses() {
        let rows = [["A", "B"], ["2001:db8:1234:5678:9abc:def0:1234:5678", "x"], ["10.0.0.1", "longer"]];
        let rows = rows.map(|row| row.map(str::to_owned));
        let text = table(&rows);
        let columns: Vec<_> = text.lines().map(|line| line.rfind(' ').unwrap()).collect();
        assert!(columns.iter().all(|column| *column == columns[0]) && !text.contains(" \n"), "{text}");
    }

    #[test]
    fn ids_of_kubernetes_are_shortened() {
        assert_eq!(shortened("cnitool-77383ca0a0715733ca6f"), "cnitool-77383ca0a0715733ca6f");
        assert_eq!(shortened(&"0123456789abcdef".repeat(4)), "0123456789abc...");
    }
}
