//! A system bus of a host's own, at the place where every program looks for it, and programs that end with their test.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use zbus::{Connection, MatchRule, MessageStream, block_on};

use crate::host::Host;
use crate::namespace::PATH;

/// Where programs look for the bus; /run is the host's own.
const SOCKET: &str = "/run/dbus/system_bus_socket";

/// A service is on the bus within a second or so.
const PATIENCE: Duration = Duration::from_secs(30);

/// A program that runs until it is dropped, or the test ends in whatever way: a shell reads a pipe that ends then, and
/// kills what it has started.
#[derive(Debug)]
pub(crate) struct Daemon {
    shell: Child,
}

impl Daemon {
    /// Starts it where the calling thread is.
    pub(crate) fn start(program: &mut Command) -> Self {
        let mut shell = Command::new("sh");
        shell.args(["-c", r#""$@" & read -r _; kill -KILL $!; wait"#, "sh"]);
        shell.arg(program.get_program()).args(program.get_args()).env_clear().env("PATH", PATH);
        shell.envs(program.get_envs().filter_map(|(key, value)| Some((key, value?))));
        shell.stdin(Stdio::piped()).stdout(Stdio::piped());
        let name = program.get_program().display().to_string();
        Self { shell: shell.spawn().unwrap_or_else(|e| panic!("run {name} in a shell: {e}")) }
    }

    /// Waits for its first line of output.
    fn first_line(&mut self) -> String {
        let mut line = String::new();
        let stdout = self.shell.stdout.as_mut().expect("stdout is piped");
        BufReader::new(stdout).read_line(&mut line).expect("read the first line");
        line
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        drop(self.shell.wait());
    }
}

/// A bus: Debian's dbus-daemon, with a configuration that lets everybody do everything.
#[derive(Debug)]
pub struct Bus<'a> {
    host: &'a Host,
    socket: &'static str,
    _daemon: Daemon,
}

impl<'a> Bus<'a> {
    /// A bus where everybody looks for it.
    pub fn start(host: &'a Host) -> Self {
        Self::start_at(host, SOCKET)
    }

    /// A bus elsewhere: a path below /run.
    ///
    /// It would start a service firewalld for whoever calls it, by making the file [`Bus::started`].
    pub fn start_at(host: &'a Host, socket: &'static str) -> Self {
        let daemon = host.enter(|| {
            make_directory(socket);
            fs::create_dir_all("/run/services").expect("make /run/services");
            let service =
                "[D-BUS Service]\nName=org.fedoraproject.FirewallD1\nExec=/bin/touch /run/firewalld-was-started\n";
            fs::write("/run/services/firewalld.service", service).expect("write a service file");
            let conf = format!("{socket}.conf");
            fs::write(&conf, configuration(socket)).unwrap_or_else(|e| panic!("write {conf}: {e}"));
            let mut program = Command::new("dbus-daemon");
            program.args(["--nofork", "--nopidfile", "--print-address=1", &format!("--config-file={conf}")]);
            let mut daemon = Daemon::start(&mut program);
            let address = daemon.first_line();
            assert!(address.starts_with("unix:path="), "dbus-daemon (`cargo xtask test` installs it): {address:?}");
            daemon
        });
        Self { host, socket, _daemon: daemon }
    }

    /// Whether the bus was asked to start firewalld.
    pub fn started(&self) -> bool {
        self.host.enter(|| Path::new("/run/firewalld-was-started").exists())
    }

    /// A connection of the test's own.
    pub(crate) fn connect(&self) -> Connection {
        let address = format!("unix:path={}", self.socket);
        let builder = zbus::connection::Builder::address(address.as_str());
        self.host.enter(|| block_on(builder.build()).unwrap_or_else(|e| panic!("connect to {address}: {e}")))
    }

    /// Waits until somebody has a name on the bus.
    pub(crate) fn wait_for(&self, name: &'static str) {
        let (found, waiting) = mpsc::channel();
        let connection = self.connect();
        thread::spawn(move || {
            block_on(owned(&connection, name));
            let _ = found.send(()); // nobody waits any more
        });
        waiting.recv_timeout(PATIENCE).unwrap_or_else(|e| panic!("wait for {name} on the bus: {e}"));
    }
}

/// Done when somebody has the name.
async fn owned(connection: &Connection, name: &str) {
    let rule = format!("type='signal',sender='org.freedesktop.DBus',member='NameOwnerChanged',arg0='{name}'");
    let rule = MatchRule::try_from(rule.as_str()).expect("a match rule").into_owned();
    let mut changes = MessageStream::for_match_rule(rule, connection, None).await.expect("watch the bus");
    let (bus, method) = (Some("org.freedesktop.DBus"), "NameHasOwner");
    let asked = connection.call_method(bus, "/", bus, method, &(name,)).await.expect("ask the bus");
    let has_owner: bool = asked.body().deserialize().expect("a boolean");
    if !has_owner {
        futures_util::StreamExt::next(&mut changes).await.expect("the bus goes on").expect("a signal");
    }
}

/// A bus that does not answer: whoever connects waits.
#[derive(Debug)]
pub struct HungBus(#[expect(dead_code, reason = "open for as long as this lives")] UnixListener);

impl HungBus {
    /// At the place where everybody looks.
    pub fn start(host: &Host) -> Self {
        Self(host.enter(|| {
            make_directory(SOCKET);
            UnixListener::bind(SOCKET).unwrap_or_else(|e| panic!("listen at {SOCKET}: {e}"))
        }))
    }
}

fn make_directory(socket: &str) {
    let directory = Path::new(socket).parent().expect("a path with a parent");
    fs::create_dir_all(directory).unwrap_or_else(|e| panic!("make {}: {e}", directory.display()));
}

fn configuration(socket: &str) -> String {
    format!(
        r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <listen>unix:path={socket}</listen>
  <auth>EXTERNAL</auth>
  <servicedir>/run/services</servicedir>
  <limit name="service_start_timeout">500</limit>
  <policy context="default">
    <allow own="*"/>
    <allow send_destination="*"/>
    <allow receive_sender="*"/>
  </policy>
</busconfig>
"#
    )
}
