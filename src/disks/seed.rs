//! Seed disks: a small FAT volume called `cidata`, which cloud-init takes for its NoCloud source. In: what stands on it. Out: its
//! bytes; the same for the same words.
//!
//! ```text
//! meta-data   instance and host name
//! user-data   ours alone, or the teacher's text as it is and ours behind it: what the first says counts, and lists are joined
//! ```

use std::io::{Cursor, Write as _};

use base64ct::{Base64, Encoding as _};
use fatfs::{FatType, FileSystem, FormatVolumeOptions, FsOptions, format_volume};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::model::seed::SeedDisk;

/// What cloud-init looks for.
const LABEL: &[u8; 11] = b"cidata     ";
const SECTOR_BYTES: usize = 512;
/// For the volume's own tables, and names.
const TABLES_BYTES: usize = 64 << 10;
/// How cloud-init is to join our part to the teacher's: nothing of theirs is replaced, lists go on.
const MERGE: &str = "list(append)+dict(no_replace,recurse_list)+str()";

/// The bytes of a seed disk. The first account has the password with this hash.
pub fn seed_image(seed: &SeedDisk, password_hash: &str) -> Vec<u8> {
    let meta_data = pretty(&json!({ "instance-id": seed.instance, "local-hostname": seed.hostname }));
    let files = [("meta-data", meta_data), ("user-data", user_data(seed, password_hash))];
    // Only memory is written to, and it is large enough.
    volume(&files).expect("a volume in memory can be written")
}

fn volume(files: &[(&str, String)]) -> std::io::Result<Vec<u8>> {
    let content: usize = files.iter().map(|(_, text)| text.len().next_multiple_of(SECTOR_BYTES)).sum();
    let bytes = (content + TABLES_BYTES).next_multiple_of(TABLES_BYTES);
    let mut image = Cursor::new(vec![0; bytes]);
    let digest = Sha256::digest(files.iter().map(|(_, text)| text.as_str()).collect::<String>());
    let id = u32::from_le_bytes([digest[0], digest[1], digest[2], digest[3]]);
    let options = FormatVolumeOptions::new().volume_label(*LABEL).volume_id(id).fat_type(FatType::Fat12);
    format_volume(&mut image, options.bytes_per_cluster(512).max_root_dir_entries(64))?;
    let volume = FileSystem::new(&mut image, FsOptions::new())?;
    for (name, text) in files {
        volume.root_dir().create_file(name)?.write_all(text.as_bytes())?;
    }
    volume.unmount()?;
    Ok(image.into_inner())
}

fn user_data(seed: &SeedDisk, password_hash: &str) -> String {
    let ours = pretty(&cloud_config(seed, password_hash));
    match &seed.user_data {
        None => format!("#cloud-config\n{ours}"),
        Some(theirs) => joined(theirs, &ours),
    }
}

/// JSON, which is YAML too, and in which no name needs to be quoted.
fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).expect("it has only string keys") + "\n"
}

fn cloud_config(seed: &SeedDisk, password_hash: &str) -> Value {
    let account = |(place, user): (usize, &crate::model::seed::GuestUser)| {
        let mut account = Map::new();
        let mut put = |key: &str, value: Value| drop(account.insert(key.to_owned(), value));
        put("name", json!(user.name));
        put("shell", json!("/bin/bash"));
        put("lock_passwd", json!(place != 0));
        if place == 0 {
            put("hashed_passwd", json!(password_hash));
        }
        if seed.sudo {
            put("sudo", json!("ALL=(ALL) NOPASSWD:ALL"));
        }
        if !user.ssh_keys.is_empty() {
            put("ssh_authorized_keys", json!(user.ssh_keys));
        }
        Value::Object(account)
    };
    let users: Vec<Value> = seed.users.iter().enumerate().map(account).collect();
    // The guest knows its own name without asking anybody.
    let mut config = json!({ "users": users, "manage_etc_hosts": "localhost" });
    if let Some(keyboard) = &seed.keyboard {
        config["keyboard"] = json!(keyboard);
    }
    config
}

/// Parts of one message, as cloud-init reads them. Each is in base64: what has no ASCII in it would not come through otherwise.
fn joined(theirs: &str, ours: &str) -> String {
    const BOUNDARY: &str = "==labwright==";
    let part = |head: &str, text: &str| {
        let lines: Vec<String> = Base64::encode_string(text.as_bytes())
            .as_bytes()
            .chunks(76)
            .map(|line| String::from_utf8_lossy(line).into_owned())
            .collect();
        let kind = "Content-Type: text/cloud-config; charset=\"utf-8\"\nMIME-Version: 1.0";
        format!("--{BOUNDARY}\n{kind}\nContent-Transfer-Encoding: base64\n{head}\n{}\n", lines.join("\n"))
    };
    let head = format!("Content-Type: multipart/mixed; boundary=\"{BOUNDARY}\"\nMIME-Version: 1.0\n\n");
    let merge = format!("Merge-Type: {MERGE}\n");
    head + &part("", theirs) + &part(&merge, ours) + &format!("--{BOUNDARY}--\n")
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;
    use crate::model::seed::{GuestUser, Keyboard};

    fn seed(user_data: Option<&str>) -> SeedDisk {
        let user = |name: &str| GuestUser { name: name.to_owned(), ssh_keys: Vec::new() };
        SeedDisk {
            instance: "k3f9-lan-ana-gsr-7".to_owned(),
            hostname: "ana-gsr".to_owned(),
            users: vec![user("ana"), user("teacher")],
            sudo: true,
            keyboard: Some(Keyboard { layout: "de".to_owned(), variant: None }),
            user_data: user_data.map(str::to_owned),
        }
    }

    fn file(image: &[u8], name: &str) -> String {
        let volume = FileSystem::new(Cursor::new(image.to_vec()), FsOptions::new()).unwrap();
        assert_eq!(volume.volume_label(), "cidata");
        let mut text = String::new();
        volume.root_dir().open_file(name).unwrap().read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn what_stands_on_it_is_yaml() {
        let image = seed_image(&seed(None), "$6$salt$hash");
        assert_eq!(image, seed_image(&seed(None), "$6$salt$hash"), "the same words are the same bytes");
        insta::assert_snapshot!(file(&image, "meta-data") + &file(&image, "user-data"));
        let text = file(&image, "user-data");
        serde_yaml::from_str::<serde_yaml::Value>(text.strip_prefix("#cloud-config\n").unwrap()).unwrap();
    }

    #[test]
    fn a_teachers_text_stays_as_it_is_in_front_of_ours() {
        let theirs = "packages: [htop]\nmotd: Grüße # yes\n";
        let text = file(&seed_image(&seed(Some(theirs)), "$6$salt$hash"), "user-data");
        let bodies: Vec<String> = text
            .split("\n\n")
            .skip(2)
            .map(|body| {
                let digits: String = body.split("\n--").next().unwrap().lines().collect();
                String::from_utf8(Base64::decode_vec(&digits).unwrap()).unwrap()
            })
            .collect();
        assert_eq!(bodies[0], theirs);
        assert!(bodies[1].contains("\"name\": \"ana\""), "{}", bodies[1]);
        assert!(text.lines().all(|line| line.len() <= 78), "a mail's lines are short");
    }

    /// As large as it can be.
    #[test]
    fn a_long_text_finds_room() {
        let theirs = "x".repeat(16 << 10);
        let text = file(&seed_image(&seed(Some(&theirs)), "$6$salt$hash"), "user-data");
        assert!(text.len() > theirs.len());
    }
}
