-- verify lots: compare vehicles
-- $1 folded rows, $2 columns to compare
select
  f.vin as "vin!",
  v.vin is null as "missing!",
  d.key as "column?",
  d.stands as "stands?",
  d.versions as "versions?"
from jsonb_populate_recordset(null::public.vehicles, $1) as f
left join public.vehicles v on v.vin = f.vin
left join lateral (
  select n.key, o.value as stands, n.value as versions
  from jsonb_each(to_jsonb(f)) as n
  join jsonb_each(to_jsonb(v)) as o on o.key = n.key
  where n.key = any ($2::text[])
    and n.value is distinct from o.value
) as d on true
where v.vin is null
  or d.key is not null
order by 1, 3
