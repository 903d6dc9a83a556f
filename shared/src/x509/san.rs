//! tmp
/// tmp
#[must_use]
pub fn dns_names(sans: &[String]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for n in sans {
        let n = n.to_ascii_lowercase();
        if !names.contains(&n) {
            names.push(n);
        }
    }
    names
}
