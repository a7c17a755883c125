-- 0021_rollback: keeps labels and aliases as they are. The record of operators' edits is deleted.

revoke update (source) on raw.sources from vinops_ops;
revoke update (damage_code, secondary_damage_code, sale_type_code) on staging.copart_raw from vinops_ops;
revoke update (damage_code, secondary_damage_code, sale_type_code, updated_at) on public.lots from vinops_ops;

update public.lots
set has_keys_code = case has_keys_code
    when 'keys_yes' then 'YES'
    when 'keys_no' then 'NO'
    when 'keys_exempt' then 'EXM'
  end
where has_keys_code in ('keys_yes', 'keys_no', 'keys_exempt');
update public.lots
set lot_condition_code = upper(replace(lot_condition_code, 'cond_', ''))
where lot_condition_code in ('cond_d', 'cond_s', 'cond_e', 'cond_n');
update staging.copart_raw
set has_keys_code = case has_keys_code
    when 'keys_yes' then 'YES'
    when 'keys_no' then 'NO'
    when 'keys_exempt' then 'EXM'
  end
where has_keys_code in ('keys_yes', 'keys_no', 'keys_exempt');
update staging.copart_raw
set lot_condition_code = upper(replace(lot_condition_code, 'cond_', ''))
where lot_condition_code in ('cond_d', 'cond_s', 'cond_e', 'cond_n');

drop function if exists taxonomies.title_label(text, text, text);

alter table taxonomies.aliases
  drop constraint if exists aliases_domain_is_known,
  drop constraint if exists aliases_raw_is_folded,
  drop constraint if exists aliases_code_format_ck,
  drop column if exists seeded_code;

drop table if exists taxonomies.seeds;
