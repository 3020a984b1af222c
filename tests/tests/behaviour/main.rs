//! Behaviour of the built binaries: a module a subject, one executable because linking is slow.
//!
//! `cfg(test)` on each module tells clippy that its helper functions are tests too.

#[cfg(test)]
mod announcement;
#[cfg(test)]
mod bad_input;
#[cfg(test)]
mod bandwidth;
#[cfg(test)]
mod bandwidth_agents;
#[cfg(test)]
mod bandwidth_conf;
#[cfg(test)]
mod bandwidth_del;
#[cfg(test)]
mod bandwidth_interop;
#[cfg(test)]
mod bandwidth_refusal;
#[cfg(test)]
mod bandwidth_shape;
#[cfg(test)]
mod bridge;
#[cfg(test)]
mod bridge_check;
#[cfg(test)]
mod bridge_conf;
#[cfg(test)]
mod bridge_failed_add;
#[cfg(test)]
mod bridge_gateway;
#[cfg(test)]
mod bridge_masquerade;
#[cfg(test)]
mod bridge_port;
#[cfg(test)]
mod bridge_routes;
#[cfg(test)]
mod chained_examples;
#[cfg(test)]
mod check_alarms;
#[cfg(test)]
mod cnitool_doctor;
#[cfg(test)]
mod cnitool_doctor_broken;
#[cfg(test)]
mod cnitool_doctor_killed;
#[cfg(test)]
mod cnitool_doctor_others;
#[cfg(test)]
mod cnitool_gc;
#[cfg(test)]
mod cnitool_gc_adds;
#[cfg(test)]
mod cnitool_gc_living;
#[cfg(test)]
mod cnitool_gc_rules;
#[cfg(test)]
mod cnitool_gc_view;
#[cfg(test)]
mod cnitool_ipam;
#[cfg(test)]
mod conf_examples;
#[cfg(test)]
mod cves;
#[cfg(test)]
mod damage;
#[cfg(test)]
mod del_gone;
#[cfg(test)]
mod del_others;
#[cfg(test)]
mod firewall;
#[cfg(test)]
mod firewall_conf;
#[cfg(test)]
mod firewall_firewalld;
#[cfg(test)]
mod firewall_interop;
#[cfg(test)]
mod firewall_kube;
#[cfg(test)]
mod firewall_node;
#[cfg(test)]
mod firewall_owner;
#[cfg(test)]
mod firewall_policy;
#[cfg(test)]
mod firewall_refusal;
#[cfg(test)]
mod gc;
#[cfg(test)]
mod gc_interop;
#[cfg(test)]
mod hostile_files;
#[cfg(test)]
mod hostile_size;
#[cfg(test)]
mod ipam_beside;
#[cfg(test)]
mod lab;
#[cfg(test)]
mod load;
#[cfg(test)]
mod log;
#[cfg(test)]
mod log_journal;
#[cfg(test)]
mod loopback;
#[cfg(test)]
mod masquerade_examples;
#[cfg(test)]
mod masquerade_keys;
#[cfg(test)]
mod masquerade_legacy;
#[cfg(test)]
mod masquerade_refusals;
#[cfg(test)]
mod mixed_pairs;
#[cfg(test)]
mod parallel;
#[cfg(test)]
mod portmap;
#[cfg(test)]
mod portmap_changed;
#[cfg(test)]
mod portmap_conf;
#[cfg(test)]
mod portmap_interop;
#[cfg(test)]
mod portmap_killed;
#[cfg(test)]
mod portmap_node;
#[cfg(test)]
mod portmap_refusals;
#[cfg(test)]
mod portmap_rules;
#[cfg(test)]
mod ptp;
#[cfg(test)]
mod ptp_check;
#[cfg(test)]
mod ptp_failed_add;
#[cfg(test)]
mod ptp_interop;
#[cfg(test)]
mod recorded;
#[cfg(test)]
mod refusal;
#[cfg(test)]
mod services;
#[cfg(test)]
mod services_chained;
#[cfg(test)]
mod services_paths;
#[cfg(test)]
mod static_ipam;
#[cfg(test)]
mod status;
#[cfg(test)]
mod takeover;
#[cfg(test)]
mod takeover_back;
#[cfg(test)]
mod takeover_conf;
#[cfg(test)]
mod takeover_facts;
#[cfg(test)]
mod takeover_mixed;
#[cfg(test)]
mod takeover_old;
#[cfg(test)]
mod tuning;
#[cfg(test)]
mod tuning_backup;
#[cfg(test)]
mod tuning_conf;
#[cfg(test)]
mod versions;
