-- seed: title_labels
with file_labels as (
  select *
  from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::boolean[]) as f (code, state, en, ru, needs_review)
),
-- as in the other label tables
label_updates as (
  update taxonomies.title_labels t
  set
    en = case when t.en = s.en then f.en else t.en end,
    ru = case when t.ru is not distinct from s.ru then f.ru else t.ru end,
    needs_review = case when t.needs_review = s.needs_review then f.needs_review else t.needs_review end,
    updated_at = now()
  from file_labels f
  join taxonomies.seeds s on s.domain = 'title_types' and s.code = f.code and s.state = f.state
  where t.code = f.code
    and t.state = f.state
    and (s.en, s.ru, s.needs_review) is distinct from (f.en, f.ru, f.needs_review)
),
new_labels as (
  insert into taxonomies.title_labels (code, state, en, ru, needs_review)
  select * from file_labels
  on conflict (code, state) do nothing
)
insert into taxonomies.seeds as s (domain, code, state, en, ru, needs_review)
select 'title_types', * from file_labels
on conflict (domain, code, state) do update
set en = excluded.en, ru = excluded.ru, needs_review = excluded.needs_review
where (s.en, s.ru, s.needs_review) is distinct from (excluded.en, excluded.ru, excluded.needs_review)
