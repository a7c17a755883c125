-- verify lots: compare lots
-- $1 folded rows, $2 columns to compare
select
  f.source as "source!",
  f.lot_external_id as "lot!",
  l.id is null as "missing!",
  d.key as "column?",
  d.stands as "stands?",
  d.versions as "versions?"
from jsonb_populate_recordset(null::public.lots, $1) as f
left join public.lots l on l.source = f.source and l.lot_external_id = f.lot_external_id
left join lateral (
  select n.key, o.value as stands, n.value as versions
  from jsonb_each(to_jsonb(f)) as n
  join jsonb_each(to_jsonb(l)) as o on o.key = n.key
  where n.key = any ($2::text[])
    and n.value is distinct from o.value
) as d on true
where l.id is null
  or d.key is not null
order by 1, 2, 4
