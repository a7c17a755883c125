-- verify lots: compare open picture links
-- $1 sources, $2 numbers, $3 thumbnails and $4 listings of lots. A link with another VIN does not belong to the lot.
select
  l.source as "source!",
  g.lot as "lot!",
  p.variant as "variant!",
  i.links as "stands?",
  p.url as "versions?"
from unnest($1::text[], $2::bigint[], $3::text[], $4::text[]) as g (source, lot, thumbnail, listing)
join public.lots l on l.source = g.source and l.lot_external_id = g.lot::text
cross join lateral (values ('thumbnail', g.thumbnail), ('listing', g.listing)) as p (variant, url)
cross join lateral (
  select
    string_agg(concat(o.source_url, case when o.vin <> l.vin then ' of ' || o.vin end), ', ' order by o.source_url)
      as links
  from public.images o
  where o.lot_id = l.id
    and o.seq = 1
    and o.variant = p.variant
    and o.valid_until is null
) as i
where i.links is distinct from p.url
order by 1, 2, 3
