//! Description of an index, in a form that can be compared.

use sqlx::PgConnection;

/// Returns table, keys and condition of an index, in a form that does not depend on the way PostgreSQL prints them.
pub async fn describe_index(connection: &mut PgConnection, name: &str) -> sqlx::Result<String> {
    let found = sqlx::query!(
        r#"-- verify: index
        select
          i.indisunique as "only_one!",
          i.indrelid::regclass::text as "table!",
          array(
            select pg_get_indexdef(i.indexrelid, k, false)
            from generate_series(1, i.indnkeyatts) as k
            order by k
          ) as "keys!: Vec<String>",
          pg_get_expr(i.indpred, i.indrelid) as predicate
        from pg_index as i
        where i.indexrelid = to_regclass($1)"#,
        name
    )
    .fetch_optional(connection)
    .await?;
    let Some(found) = found else { return Ok("missing".to_owned()) };
    let unique = if found.only_one { "unique " } else { "" };
    let mut words = format!("{unique}{} ({})", found.table, found.keys.join(", "));
    if let Some(predicate) = found.predicate {
        words += &format!(" where {}", normalize_condition(&predicate));
    }
    Ok(words)
}

/// Returns a condition without what PostgreSQL adds: casts, parentheses and `= true`.
fn normalize_condition(condition: &str) -> String {
    let mut words: Vec<String> = Vec::new();
    for word in condition.replace(['(', ')'], "").split_whitespace() {
        words.push(word.split("::").next().unwrap_or_default().to_lowercase());
    }
    words.join(" ").replace(" = true", "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_is_read_without_what_postgresql_adds() {
        let printed = "((is_active = true) AND (scope_type = 'LISTING'::bom_scope_type))";
        assert_eq!(normalize_condition(printed), "is_active and scope_type = 'listing'");
        assert_eq!(normalize_condition("is_active"), "is_active");
    }
}
