//! What a guest learns of itself: its seed disk as another program reads it, and as the guest finds it.

use std::os::unix::fs::MetadataExt as _;
use std::process::Command;

use base64ct::{Base64, Encoding as _};
use serde_json::Value;

use crate::lab::Lab;
use crate::world::text;

impl Lab {
    /// Gives all guests of the lab a seed, with a text of the teacher's.
    pub(crate) fn seeded(self) -> Self {
        std::fs::write(self.folder.join("user-data.yaml"), "#cloud-config\nmotd: this is {vm} at {ip}\n").unwrap();
        let seed = "seed: { keyboard: de, sudo: true, user_data: user-data.yaml }";
        self.edit("    isolated: true\n", &format!("    isolated: true\n    {seed}\n"));
        self
    }

    /// The run that the guest of a vm is in.
    pub(crate) fn run(&self, vm: &str) -> String {
        let jobs: Vec<Value> =
            serde_json::from_str(&self.must(&["get", "jobs", "-o", "json", "--lab", &text(&self.folder)])).unwrap();
        let of_vm: Vec<&Value> = jobs.iter().filter(|job| job["vm"] == vm && job["ended"].is_null()).collect();
        assert_eq!(of_vm.len(), 1, "{jobs:?}");
        of_vm[0]["run"].as_str().unwrap().to_owned()
    }

    /// What stands on the seed disk of a guest that runs, which only that guest reads: what it is called.
    pub(crate) fn instance(&self, vm: &str, owner: &str) -> String {
        let mapping = self.mapping(vm);
        let runs = self.world.folder.path().join("site/runs");
        let image = runs.join(self.run(vm)).join("seed.img");
        let found = std::fs::metadata(&image).unwrap();
        assert_eq!((found.mode() & 0o777, found.uid()), (0o600, 65534), "the guests' account alone reads it");

        let read = |name: &str| {
            let output = Command::new("mtype").args(["-i", &text(&image), &format!("::{name}")]).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap()
        };
        let meta: Value = serde_json::from_str(&read("meta-data")).unwrap();
        assert_eq!(meta["local-hostname"], vm);
        let parts: Vec<String> = read("user-data").split("\n\n").skip(2).map(decoded).collect();
        assert_eq!(parts[0], format!("#cloud-config\nmotd: this is {vm} at {}\n", mapping["ip"].as_str().unwrap()));
        let ours: Value = serde_json::from_str(&parts[1]).unwrap();
        assert_eq!((&ours["users"][0]["name"], &ours["keyboard"]["layout"]), (&owner.into(), &"de".into()));

        let shown: Value =
            serde_json::from_str(&self.must(&["vm", "show", vm, "-o", "json", "--lab", &text(&self.folder)])).unwrap();
        let (user, password) = (&shown["login"]["user"], shown["login"]["password"].as_str().unwrap());
        assert_eq!((user, password.len()), (&owner.into(), 14));
        assert!(ours["users"][0]["hashed_passwd"].as_str().unwrap().starts_with("$6$"));
        assert!(!parts[1].contains(password), "shared storage has its hash alone");

        let instance = meta["instance-id"].as_str().unwrap().to_owned();
        let mut console = self.console(vm);
        assert_eq!(console.run(&format!("grep -ac '{instance}' /dev/vdb")), (0, "1\n".to_owned()));
        assert_ne!(console.run("dd if=/dev/zero of=/dev/vdb bs=512 count=1 2>/dev/null").0, 0, "it only reads it");
        instance
    }
}

fn decoded(part: &str) -> String {
    let digits: String = part.split("\n--").next().unwrap().lines().collect();
    String::from_utf8(Base64::decode_vec(&digits).unwrap()).unwrap()
}
