//! What cnitool says about itself.

use libcni::{Code, Error, Version};

use crate::nearest::hint;

/// A command and its help.
pub struct Command {
    pub name: &'static str,
    arguments: &'static str,
    /// One line for the overview.
    summary: &'static str,
    /// What else there is to know.
    more: &'static str,
}

/// Every command, in the order of the overview.
pub const COMMANDS: &[Command] = &[
    Command {
        name: "add",
        arguments: "NET NETNS",
        summary: "attach the namespace to the network, and print the result",
        more: "If a plugin fails, what the others made is removed again, unless an earlier add of the\n\
               same namespace and interface is remembered. Plugins' logs go to stderr.\n",
    },
    Command {
        name: "check",
        arguments: "NET NETNS",
        summary: "see whether everything is as add left it (cniVersion 0.4.0 and later)",
        more: "Nothing is printed if it is.\n",
    },
    Command {
        name: "del",
        arguments: "NET NETNS",
        summary: "detach the namespace; it may be gone already",
        more: "To detach twice is no error.\n",
    },
    Command {
        name: "gc",
        arguments: "[NET [NETNS]]",
        summary: "remove what is left of containers that are gone",
        more: "Without NETNS: detaches the attachments of NET, or of every network, whose container is certainly\n\
               gone (ipam list says which are stale, and why), then tells the plugins to keep the others and\n\
               remove what is nobody's: rules, links, leases; and says what was removed. What may live is kept. It refuses\n\
               where the node cannot be seen (in a pod with hostNetwork and without hostPID, in a pod's network): what is\n\
               not seen would count as gone. Runtimes may start pods meanwhile: ADDs of these plugins and gc wait for each\n\
               other; after 60 s of ADDs gc gives up and says so. Other plugins' do not wait: where they are used, call it\n\
               when no pod starts.\n\
               \n\
               With NETNS, as the reference's cnitool: detaches EVERY attachment of NET that is remembered in the\n\
               cache directory, whichever tool made it, dead or alive. The path itself is not used.\n\
               \n\
               With --dry-run nothing is changed: each plugin says what it would remove. Of one that has no dry run\n\
               it is not known. \"disableGC\" in the configuration prevents all of it.\n\
               \n  \
                 --dry-run        say it, and do not do it\n  \
                 --json           networks: network, disabled, detach (container, interface, why), remove,\n                   \
                                  notKnown, errors; the same with and without --dry-run\n  \
                 --cache-dir DIR  where runtimes remember (/var/lib/cni)\n",
    },
    Command {
        name: "ipam",
        arguments: "list|check [NET]...",
        summary: "say who has which address, and what is left over",
        more: "list: each address with its network, container, interface and age, whether it is alive, stale or\n\
               unknown, and what shows that; then how much of each range is used. It knows host-local's leases (in\n\
               every dataDir of NETCONFPATH, and in /var/lib/cni/networks) and what runtimes remember of others.\n\
               \n\
               check: leases without a pod, pods without a lease, leases that are empty, unreadable, outside of the\n\
               ranges or there twice, cache entries whose namespace is gone or that cannot be read, what plugins\n\
               have that is nobody's (rules, links, backups), ifb links that nothing uses; each with what to do.\n\
               The exit status is 0 for nothing, 1 for findings, 2 if something could not be looked at.\n\
               \n\
               Both change nothing, and need root to look into namespaces.\n\
               \n  \
                 --json           list: addresses (network, address, container, interface, written, ageSeconds,\n                   \
                                  state, why, file) and ranges (network, range, size, used, free);\n                   \
                                  check: findings (kind, network, what, advice), notes, notLookedAt\n  \
                 --cache-dir DIR  where runtimes remember (/var/lib/cni)\n",
    },
    Command {
        name: "status",
        arguments: "NET NETNS",
        summary: "ask whether the network can take containers (cniVersion 1.1.0 and later)",
        more: "NETNS is required and not used. Before 1.1.0 there is no way to ask, and the answer is yes.\n",
    },
    Command {
        name: "validate",
        arguments: "[FILE|DIR]...",
        summary: "check configurations before they are used",
        more: "Reports, as FILE:LINE:COLUMN, what is no JSON, unknown keys with the nearest known one,\n\
               values of the wrong type, missing plugins, versions a plugin does not speak, and ranges that overlap,\n\
               within a network and between networks. Without an argument the directory NETCONFPATH is\n\
               checked. The exit status is 1 if there is an error; warnings alone leave it 0.\n\
               Plugins are looked for in CNI_PATH, or /opt/cni/bin if it is not set.\n",
    },
    Command {
        name: "plugins",
        arguments: "",
        summary: "list what is in CNI_PATH, and which versions each plugin speaks",
        more: "Every program there is asked with CNI_COMMAND=VERSION, which changes nothing.\n\
               Without CNI_PATH it is /opt/cni/bin.\n",
    },
    Command {
        name: "doctor",
        arguments: "[NET]",
        summary: "try a network with a temporary pod; say what is broken, and what to do",
        more: "Without NET it is the network that kubelet's runtime takes: that of the first file. Needs root.\n\
               Two pods are added by the real configuration, with container ids podwire-doctor-PID and\n\
               podwire-doctor-PID-neighbour, asked for the gateway, each other, the way out, full-size\n\
               packets and a host port, then deleted; also after SIGINT and SIGTERM. What the first pod of a\n\
               node makes (a bridge, forwarding) is taken back if it was not there. Where a pod would harm\n\
               the node, none is made. What a doctor left that was killed is removed by the next, and by gc.\n\
               \n\
               Packets go to the node's own addresses and to its default gateway, the neighbour on its link,\n\
               and to nobody else, unless there is a --target:\n\
               \n\
               \x20 --target ADDRESS  ping this address from the pod as well; may be repeated\n\
               \x20 --json            one JSON object: network, file, healthy, broken, warnings, and probes\n\
               \x20                   with probe, verdict (ok, warn, broken, skipped), detail, remedy\n\
               \x20 --cache-dir DIR   where results are remembered (/var/lib/cni)\n\
               \n\
               The exit status is 1 if something is broken, 2 if it could not be tried.\n",
    },
    Command { name: "help", arguments: "[COMMAND]", summary: "explain a command", more: "" },
];

const OPTIONS: &str = "\
Options:
  -i, --ifname NAME    interface in the namespace (CNI_IFNAME, else eth0)
      --cache-dir DIR  where results are remembered (/var/lib/cni)
  -h, --help           explain cnitool or a command
  -V, --version        print the version
";

const ENVIRONMENT: &str = "\
Environment:
  CNI_PATH     directories of plugins, separated by ':'
  NETCONFPATH  directory of configurations (/etc/cni/net.d)
  CNI_IFNAME   interface in the namespace (eth0)
  CNI_ARGS     KEY=VALUE;KEY=VALUE for the plugins
  CAP_ARGS     JSON object: values for capabilities, like {\"mac\":\"0a:00:00:00:00:01\"}
  PODWIRE_LOG  where each plugin writes a line for each call: a file, or journal
";

/// The overview, or the help of a command.
pub fn text(topic: Option<&str>) -> Result<String, Error> {
    let Some(topic) = topic else {
        let mut text =
            String::from("cnitool drives CNI plugins from the command line.\n\nUsage: cnitool COMMAND ...\n\n");
        for command in COMMANDS {
            let usage = format!("{} {}", command.name, command.arguments);
            text.push_str(&format!("  {usage:<24} {}\n", command.summary));
        }
        text.push_str(&format!(
            "\nNET is a network's name, NETNS the path of a network namespace.\n\n{OPTIONS}\n{ENVIRONMENT}"
        ));
        return Ok(text);
    };
    let known = COMMANDS.iter().find(|command| command.name == topic).ok_or_else(|| {
        let known = COMMANDS.iter().map(|command| command.name);
        Error::new(Code::INVALID_ENVIRONMENT, format!("unknown command {topic:?}{}", hint(topic, known)))
    })?;
    let Command { name, arguments, summary, more } = known;
    let usage = format!("cnitool {name} {arguments}");
    let mut text = format!("{name}: {summary}\n\nUsage: {}\n", usage.trim_end());
    if !more.is_empty() {
        text.push_str(&format!("\n{more}"));
    }
    if arguments.starts_with("NET") {
        text.push_str(&format!("\n{OPTIONS}\n{ENVIRONMENT}"));
    }
    Ok(text)
}

/// The answer to `--version`.
pub fn version() -> String {
    let versions: Vec<&str> = Version::ALL.iter().map(|version| version.as_str()).collect();
    format!("cnitool {}\nCNI protocol versions supported: {}\n", env!("CARGO_PKG_VERSION"), versions.join(", "))
}
