//! What hostnet writes into netfilter, read back by programs that know nothing of it: nft, iptables-save, the
//! iptables crate, and the reference's plugins. Each test has a network namespace of its own; they need root.

#[cfg(test)]
mod lab;

#[cfg(test)]
mod iptables_legacy;
#[cfg(test)]
mod iptables_unusable;
#[cfg(test)]
mod masquerade;
#[cfg(test)]
mod masquerade_policy;
#[cfg(test)]
mod nft;
#[cfg(test)]
mod spoof_check;
