-- seed: aliases
insert into taxonomies.aliases as a (domain, raw, code, seeded_code)
select f.domain, f.raw, f.code, f.code
from unnest($1::text[], $2::text[], $3::text[]) as f (domain, raw, code)
on conflict (domain, raw) do update
set
  code = case when a.code = a.seeded_code then excluded.code else a.code end,
  seeded_code = excluded.seeded_code
where a.seeded_code is distinct from excluded.seeded_code
