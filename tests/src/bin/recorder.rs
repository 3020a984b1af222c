//! A plugin that writes down how it was called, and is otherwise the plugin of the same name in [`REAL`].
//!
//! A line of JSON a call, in the order in which calls end, is added to the file that [`CALLS`] names. What a plugin
//! itself calls (its IPAM plugin) is not a runtime's call and is passed on unseen.

use std::env;
use std::error::Error;
use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

/// Where calls are written to, and where the plugins are: a sandbox has fixed places.
const CALLS: &str = "/run/calls";
const REAL: &str = "/opt/cni/real";

/// Set for the plugin, inherited by what it calls.
const NESTED: &str = "PODWIRE_RECORDER";

fn main() -> ExitCode {
    match record() {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("recorder: {error}");
            ExitCode::FAILURE
        }
    }
}

fn record() -> Result<u8, Box<dyn Error>> {
    let this = env::current_exe()?;
    let name = this.file_name().unwrap_or_default().to_owned();
    let mut real = Command::new(Path::new(REAL).join(&name));
    if env::var_os(NESTED).is_some() {
        return Err(real.exec().into());
    }
    let start = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();
    let mut input = Vec::new();
    io::stdin().read_to_end(&mut input)?;
    real.env(NESTED, "1").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = real.spawn()?;
    let stdin = child.stdin.take();
    let given = input.clone();
    let writer = thread::spawn(move || stdin.map(|mut stdin| stdin.write_all(&given)));
    let output = child.wait_with_output()?;
    drop(writer.join());
    let call = json!({
        "plugin": name.to_string_lossy(), "env": variables(), "stdin": json_or_text(&input), "start": start,
        "status": output.status.code(), "stdout": json_or_text(&output.stdout),
        "stderr": String::from_utf8_lossy(&output.stderr),
    });
    // One write to a file opened for appending: lines of two calls do not mix.
    OpenOptions::new().create(true).append(true).open(CALLS)?.write_all(format!("{call}\n").as_bytes())?;
    io::stderr().write_all(&output.stderr)?;
    io::stdout().write_all(&output.stdout)?;
    Ok(output.status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

fn variables() -> Value {
    let cni = env::vars().filter(|(key, _)| key.starts_with("CNI_"));
    let mut all: Vec<_> = cni.map(|(key, value)| (key, Value::from(value))).collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    Value::Object(Map::from_iter(all))
}

fn json_or_text(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_else(|_| Value::from(String::from_utf8_lossy(bytes).into_owned()))
}
