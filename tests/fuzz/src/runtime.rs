//! What a runtime reads: results of every version, configuration lists, its own cache.

use std::net::IpAddr;
use std::path::PathBuf;

use libcni::runtime::{ConfList, Runtime};
use libcni::types::{Success, Version};

fn addresses(success: &Success) -> Vec<(IpAddr, u8)> {
    success.ips.iter().map(|ip| (ip.address.addr(), ip.address.prefix_len())).collect()
}

/// A result prints as itself, and keeps its addresses on the way through every version that has room for them.
pub fn result(bytes: &[u8]) {
    for assumed in [Version::V0_2_0, Version::V0_4_0, Version::V1_1_0] {
        let Ok((version, success)) = Success::from_json(bytes, assumed) else { continue };
        if let Ok(printed) = success.to_json(version) {
            let (again, read) = Success::from_json(&printed, Version::CURRENT).expect("what we print is read");
            assert_eq!(again, version);
            assert_eq!(read.to_json(version).expect("printed before"), printed, "prints as itself");
        }
        for through in Version::ALL {
            let Ok(value) = success.to_value(*through) else {
                assert!(*through < Version::V0_3_0, "{through} has no way to say it");
                continue;
            };
            let (_, read) = Success::from_value(value, Version::CURRENT).expect("what we print is read");
            if *through >= Version::V0_3_0 {
                assert_eq!(addresses(&read), addresses(&success), "{through}");
                assert_eq!(read.routes.len(), success.routes.len(), "{through}");
            } else {
                assert!(addresses(&read).iter().all(|one| addresses(&success).contains(one)), "{through}");
                assert!(!read.ips.is_empty() && read.ips.len() <= 2);
            }
            let (_, back) =
                Success::from_value(read.to_value(Version::CURRENT).expect("always"), *through).expect("read");
            assert_eq!(addresses(&back), addresses(&read), "{through} and back");
        }
        drop(success.to_value_as_read(version));
    }
}

/// A list that is read names a network and plugins; the same list again from what it keeps.
pub fn conflist(bytes: &[u8]) {
    for list in [ConfList::from_bytes(bytes), ConfList::from_single(bytes)].into_iter().flatten() {
        let again = ConfList::from_bytes(list.bytes()).expect("what it keeps can be read");
        assert_eq!((again.name(), again.version_text()), (list.name(), list.version_text()));
        assert_eq!((again.disable_check(), again.disable_gc()), (list.disable_check(), list.disable_gc()));
        assert_eq!(again.plugins().len(), list.plugins().len());
        for plugin in list.plugins() {
            let found = libcni::exec::find(plugin.plugin_type(), &[PathBuf::from("/usr/bin")]);
            if let Ok(program) = found {
                // CVE-2021-20206
                assert_eq!(program.parent(), Some("/usr/bin".as_ref()), "{}", plugin.plugin_type());
                assert_eq!(program.file_name(), Some(plugin.plugin_type().as_ref()));
            }
        }
    }
}

/// A file in the cache's directory: whatever is in it, the list of attachments can be had.
pub fn cache(bytes: &[u8]) {
    thread_local! {
        static CACHE: tempfile::TempDir = {
            let directory = tempfile::tempdir().expect("a directory");
            std::fs::create_dir(directory.path().join("results")).expect("a directory");
            directory
        };
    }
    CACHE.with(|directory| {
        std::fs::write(directory.path().join("results/n-c1-eth0"), bytes).expect("write");
        let runtime = Runtime::new(vec![PathBuf::from("/nowhere")]).with_cache_dir(directory.path().to_owned());
        for entry in runtime.attachments(None).expect("a list, whatever is in a file") {
            for name in
                [entry.network.as_str(), entry.attachment.container_id.as_str(), entry.attachment.ifname.as_str()]
            {
                assert!(!name.is_empty() && !name.contains('/') && name != "..", "{name:?}");
            }
            assert!(entry.result.is_object());
        }
    });
}
