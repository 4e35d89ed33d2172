//! Keeps what Cargo cannot: the rules of appliance/ARCHITECTURE.md about who may name what, and the fixed top level.

use std::fs;
use std::path::Path;

/// In these files the words may not be named, for the reason given.
struct Rule {
    name: &'static str,
    within: &'static [&'static str],
    except: &'static [&'static str],
    words: &'static [&'static str],
}

const PURE: &[&str] = &["codecs/src", "masking/src", "appliance/src/gate", "appliance/src/policy"];

const RULES: &[Rule] = &[
    Rule {
        name: "pure code names no runtime",
        within: PURE,
        except: &[],
        words: &["tokio", "glommio", "io_uring", "async fn"],
    },
    Rule {
        name: "pure code names no socket",
        within: PURE,
        except: &[],
        words: &["TcpStream", "TcpListener", "UdpSocket", "UnixStream", "UnixListener", "libc"],
    },
    Rule {
        name: "pure code names no file",
        within: PURE,
        except: &[],
        words: &["std::fs", "File::open", "std::env", "std::process"],
    },
    Rule {
        name: "pure code names no clock",
        within: PURE,
        // A thread only lends its larger stack to a deeply nested statement: what it computes is as pure as before.
        except: &["masking/src/sql/depth.rs"],
        words: &["Instant", "SystemTime", "thread::sleep"],
    },
    Rule {
        name: "pure code names no random source",
        within: PURE,
        except: &[],
        words: &["SystemRandom", "rand", "getrandom", "RandomState"],
    },
    Rule {
        name: "codecs do not see masking",
        within: &["codecs/src"],
        except: &[],
        words: &["masking", "lockgate_masking", "use lockgate"],
    },
    Rule {
        name: "masking does not see codecs",
        within: &["masking/src"],
        except: &[],
        words: &["codecs", "lockgate_codecs", "use lockgate"],
    },
    Rule {
        name: "a shard names neither web nor control",
        within: &["appliance/src/shard"],
        except: &[],
        words: &["crate::web", "crate::control", "axum", "reqwest"],
    },
    Rule {
        name: "unsafe lives in the ring module, at most one masking module, and the load generator's system calls",
        within: &["appliance/src", "codecs/src", "masking/src", "loadgen/src", "bench/src", "tests/src"],
        except: &[
            "appliance/src/shard/ring.rs",
            "appliance/src/shard/ring",
            "masking/src/simd.rs",
            "loadgen/src/sys.rs",
        ],
        words: &["unsafe"],
    },
];

/// Everything there is at the top, dotfiles aside.
const TOP_LEVEL: &[&str] = &[
    "Cargo.toml",
    "Cargo.lock",
    "README.md",
    "LICENSE-MIT",
    "LICENSE-APACHE",
    "rustfmt.toml",
    "clippy.toml",
    "deny.toml",
    "rust-toolchain.toml",
    "appliance",
    "codecs",
    "masking",
    "loadgen",
    "bench",
    "deploy",
    "tests",
    "target",
];

#[test]
fn nobody_names_what_the_architecture_forbids() {
    let broken: Vec<String> = sources().iter().flat_map(|(path, text)| violations(path, text)).collect();
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn a_planted_violation_of_every_rule_is_found() {
    for rule in RULES {
        let path = format!("{}/planted.rs", rule.within[0]);
        for word in rule.words {
            let text = format!("//! A comment may say {word}.\nfn f() {{ let _ = {word}; }}\n");
            let found = violations(&path, &text);
            assert!(found.iter().any(|line| line.contains(rule.name)), "{word} in {path} went unnoticed: {found:?}");
            assert!(found.iter().all(|line| line.contains(":2:")), "comments are not code: {found:?}");
        }
    }
}

#[test]
fn a_word_inside_another_word_is_not_that_word() {
    assert_eq!(violations("codecs/src/x.rs", "let operand = brand + randomly;\n"), Vec::<String>::new());
}

#[test]
fn rules_hold_in_files_that_exist() {
    for within in RULES.iter().flat_map(|rule| rule.within) {
        let found = root().join(within).exists() || root().join(format!("{within}.rs")).exists();
        assert!(found, "{within} has moved: this rule would watch nothing");
    }
}

#[test]
fn no_file_names_a_folder_of_one_machine() {
    // An address of a file on somebody's own machine helps nobody else; documentation writes ~ or $HOME.
    let personal = ["/home/", "/root/", "/work/", "/Users/"];
    let mut found = Vec::new();
    for (path, text) in files(&["rs", "sh", "md", "toml", "py", "cjs", "js", "yml", "yaml"]) {
        let own = path == "tests/tests/tidy.rs";
        found
            .extend(personal.iter().filter(|word| !own && text.contains(**word)).map(|word| format!("{path}: {word}")));
    }
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn the_top_level_is_fixed() {
    let mut strangers = Vec::new();
    for entry in fs::read_dir(root()).expect("the workspace can be listed") {
        let name = entry.expect("an entry").file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') && !TOP_LEVEL.contains(&name.as_str()) {
            strangers.push(name);
        }
    }
    assert!(strangers.is_empty(), "not at the top level: {strangers:?}");
}

fn violations(path: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for rule in RULES {
        let under =
            |place: &str| path == place || path == format!("{place}.rs") || path.starts_with(&format!("{place}/"));
        if !rule.within.iter().any(|folder| under(folder)) || rule.except.iter().any(|folder| under(folder)) {
            continue;
        }
        for (number, line) in shipped(text).lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for word in rule.words.iter().filter(|word| names(code, word)) {
                found.push(format!("{path}:{}: `{word}`: {}", number + 1, rule.name));
            }
        }
    }
    found
}

/// The text without its unit tests, which may read files and clocks.
fn shipped(text: &str) -> &str {
    let unit_tests = text.match_indices("#[cfg(test)]\n").find(|(start, marker)| {
        let item = text[start + marker.len()..].lines().next().unwrap_or_default();
        item.contains("mod ") && item.ends_with('{')
    });
    unit_tests.map_or(text, |(start, _)| &text[..start])
}

/// Files that hold unit tests only: those some other file declares with `#[cfg(test)] mod NAME;`.
fn test_modules(sources: &[(String, String)]) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in sources {
        let (folder, file) = path.rsplit_once('/').unwrap_or(("", path));
        let home = match file {
            "mod.rs" | "lib.rs" | "main.rs" => folder.to_string(),
            _ => path.trim_end_matches(".rs").to_string(),
        };
        for (start, marker) in text.match_indices("#[cfg(test)]\n") {
            let item = text[start + marker.len()..].lines().next().unwrap_or_default();
            if let Some(name) = item.strip_suffix(';').and_then(|item| item.split("mod ").nth(1)) {
                found.push(format!("{home}/{name}"));
            }
        }
    }
    found
}

/// Whether the code has the word, not as a part of a longer one.
fn names(code: &str, word: &str) -> bool {
    let part_of_word = |character: char| character.is_alphanumeric() || character == '_';
    code.match_indices(word).any(|(start, _)| {
        let before = code[..start].chars().next_back();
        let after = code[start + word.len()..].chars().next();
        !before.is_some_and(part_of_word) && !after.is_some_and(part_of_word)
    })
}

/// Every Rust file of the workspace but those of unit tests, by its path from the top.
fn sources() -> Vec<(String, String)> {
    let mut found = files(&["rs"]);
    let tests = test_modules(&found);
    let only_tests =
        |path: &str| tests.iter().any(|home| path == format!("{home}.rs") || path.starts_with(&format!("{home}/")));
    found.retain(|(path, _)| !only_tests(path));
    assert!(found.len() > 20, "only {} files found", found.len());
    found
}

/// Every text file with one of these endings, in the folders of the workspace and at its top.
fn files(endings: &[&str]) -> Vec<(String, String)> {
    const GENERATED: &[&str] = &["target", "node_modules", "corpus", "artifacts", ".git"];
    let mut found = Vec::new();
    let mut folders = vec![root().to_path_buf()];
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path()) {
            let ending = path.extension().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() {
                if !GENERATED.iter().any(|name| path.ends_with(name)) {
                    folders.push(path);
                }
            } else if endings.contains(&ending.as_str()) {
                let name = path.strip_prefix(root()).expect("it is below the top").display().to_string();
                found.push((name, String::from_utf8_lossy(&fs::read(&path).expect("it can be read")).into_owned()));
            }
        }
    }
    found
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the workspace")
}
