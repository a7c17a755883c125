-- seed: {table}
with file_labels as (
  select *
  from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::int[], $6::boolean[])
    as f (code, en, ru, category, sort_order, needs_review)
),
-- where the files differ from the seeds: each column without an operator's edit is updated
label_updates as (
  update taxonomies.{table} t
  set
    en = case when t.en = s.en then f.en else t.en end,
    ru = case when t.ru is not distinct from s.ru then f.ru else t.ru end,
    category = case when t.category is not distinct from s.category then f.category else t.category end,
    sort_order = case when t.sort_order = s.sort_order then f.sort_order else t.sort_order end,
    needs_review = case when t.needs_review = s.needs_review then f.needs_review else t.needs_review end,
    updated_at = now()
  from file_labels f
  join taxonomies.seeds s on s.domain = '{table}' and s.code = f.code and s.state = ''
  where t.code = f.code
    and (s.en, s.ru, s.category, s.sort_order, s.needs_review)
      is distinct from (f.en, f.ru, f.category, f.sort_order, f.needs_review)
),
new_labels as (
  insert into taxonomies.{table} (code, en, ru, category, sort_order, needs_review)
  select * from file_labels
  on conflict (code) do nothing
)
insert into taxonomies.seeds as s (domain, code, en, ru, category, sort_order, needs_review)
select '{table}', * from file_labels
on conflict (domain, code, state) do update
set
  en = excluded.en,
  ru = excluded.ru,
  category = excluded.category,
  sort_order = excluded.sort_order,
  needs_review = excluded.needs_review
where (s.en, s.ru, s.category, s.sort_order, s.needs_review)
  is distinct from (excluded.en, excluded.ru, excluded.category, excluded.sort_order, excluded.needs_review)
