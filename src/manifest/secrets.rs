//! Notices secrets: a manifest is read by everybody who can read the repository, and git forgets nothing.

/// Whether a key is called like something that nobody else may know.
pub(super) fn is_secret_name(name: &str) -> bool {
    let name: String = name.trim().to_ascii_lowercase().chars().filter(|c| c.is_ascii_alphanumeric()).collect();
    let words = ["password", "passwd", "passwort", "parola", "secret", "token", "privatekey", "apikey", "passphrase"];
    words.iter().any(|word| name.contains(word)) || matches!(name.as_str(), "pass" | "pw" | "pwd" | "key")
}

/// Whether a line of a file for cloud-init gives a key that is called like a password a value.
pub(super) fn is_password_key(key: &str, line: &str) -> bool {
    let name = key.trim_start_matches([' ', '-', '{']).trim().trim_matches(['"', '\'']);
    let value =
        line.split_once(':').map(|(_, value)| value.trim().trim_end_matches(['}', ',']).trim()).unwrap_or_default();
    let is_value = !matches!(value, "" | "false" | "true" | "~" | "null") && !value.starts_with('#');
    matches!(name, "password" | "passwd" | "hashed_passwd" | "plain_text_passwd" | "hashed-passwd") && is_value
}

/// Whether a column of a roster is called like a password. Exports have columns called "Key", which are none.
pub(super) fn is_password_column(name: &str) -> bool {
    let name: String = name.trim().to_lowercase().chars().filter(|c| c.is_alphanumeric()).collect();
    let words = ["password", "passwd", "passwort", "kennwort", "parola", "passphrase", "initialpw"];
    words.iter().any(|word| name.contains(word))
}

/// Whether a text holds a private key or a password's hash.
pub(super) fn is_secret_text(text: &str) -> bool {
    let hash = ["$1$", "$5$", "$6$", "$2a$", "$2b$", "$2y$", "$y$", "$argon2"].iter().any(|mark| text.contains(mark));
    hash || (text.contains("-----BEGIN") && text.contains("PRIVATE KEY"))
}
