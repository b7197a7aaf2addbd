//! Built-in functions and operators that do not change stored data.
//!
//! A list and not a pattern: a service's own function may be called `to_slug` or `jsonb_merge`.
//! Excluded are functions that run SQL from their arguments (`query_to_xml`, `ts_stat`), functions
//! that access data outside of the tables (`lo_*`, `pg_read_file`) and `set_config`, which can
//! change the role. Sequences may be advanced and set: that loses no row.

use std::collections::HashSet;
use std::sync::LazyLock;

/// Whether a call by this name, unqualified or in `pg_catalog`, does not change stored data.
pub fn is_harmless(name: &str) -> bool {
    static NAMES: LazyLock<HashSet<&str>> = LazyLock::new(|| FUNCTIONS.split_ascii_whitespace().collect());
    NAMES.contains(name)
}

/// Whether an operator of this name is built in.
pub fn is_own_operator(name: &str) -> bool {
    static NAMES: LazyLock<HashSet<&str>> = LazyLock::new(|| OPERATORS.split_ascii_whitespace().collect());
    // The grammar represents BETWEEN by these operator names.
    NAMES.contains(name) || name.ends_with("BETWEEN") || name.ends_with("BETWEEN SYMMETRIC")
}

const OPERATORS: &str = "
    = <> != < > <= >= + - * / % ^ |/ ||/ @ & | # ~ << >> || ! !!
    ~~ !~~ ~~* !~~* ~* !~ !~* ~<~ ~<=~ ~>~ ~>=~ ^@
    -> ->> #> #>> #- @> <@ ? ?| ?& @? @@ @@@ && -|- &< &> <<| |>> &<| |&> <<= >>=
    <-> ## @-@ ?# ?- ?-| ?|| ~= <^ >^ *= *<> *< *> *<= *>=";

const FUNCTIONS: &str = "
    abs acos acosd acosh asin asind asinh atan atan2 atan2d atand atanh cbrt ceil ceiling cos cosd cosh cot cotd
    degrees div erf erfc exp factorial floor gamma gcd lcm lgamma ln log log10 min_scale mod pi pow power radians random
    random_normal round scale setseed sign sin sind sinh sqrt tan tand tanh trim_scale trunc width_bucket

    ascii bit_count bit_length btrim casefold char_length character_length chr concat concat_ws convert convert_from
    convert_to crc32 crc32c decode encode format get_bit get_byte initcap is_normalized left length like like_escape
    lower lpad ltrim md5 normalize notlike octet_length overlay parse_ident position quote_ident quote_literal
    quote_nullable regexp_count regexp_instr regexp_like regexp_match regexp_matches regexp_replace
    regexp_split_to_array regexp_split_to_table regexp_substr repeat replace reverse right rpad rtrim set_bit set_byte
    sha224 sha256 sha384 sha512 similar_to_escape split_part starts_with string_to_array string_to_table strpos substr
    substring to_ascii to_bin to_hex to_oct translate unicode_assigned unistr upper

    to_char to_date to_number to_timestamp bool bpchar date float4 float8 int2 int4 int8 interval numeric text time
    timestamp timestamptz timetz varchar

    age clock_timestamp date_add date_bin date_part date_subtract date_trunc extract isfinite justify_days
    justify_hours justify_interval make_date make_interval make_time make_timestamp make_timestamptz now overlaps
    pg_sleep statement_timestamp timeofday timezone transaction_timestamp

    gen_random_uuid uuid_extract_timestamp uuid_extract_version uuidv4 uuidv7
    nextval currval lastval setval pg_get_serial_sequence generate_series generate_subscripts

    any_value array_agg avg bit_and bit_or bit_xor bool_and bool_or corr count covar_pop covar_samp cume_dist
    dense_rank every first_value grouping json_agg json_agg_strict json_object_agg json_object_agg_strict
    json_object_agg_unique json_object_agg_unique_strict jsonb_agg jsonb_agg_strict jsonb_object_agg
    jsonb_object_agg_strict jsonb_object_agg_unique jsonb_object_agg_unique_strict lag last_value lead max min mode
    nth_value ntile percent_rank percentile_cont percentile_disc range_agg range_intersect_agg rank regr_avgx regr_avgy
    regr_count regr_intercept regr_r2 regr_slope regr_sxx regr_sxy regr_syy row_number stddev stddev_pop stddev_samp
    string_agg sum var_pop var_samp variance xmlagg

    array_append array_cat array_dims array_fill array_length array_lower array_ndims array_position array_positions
    array_prepend array_remove array_replace array_reverse array_sample array_shuffle array_sort array_to_string
    array_upper cardinality trim_array unnest

    array_to_json json_array_elements json_array_elements_text json_array_length json_build_array json_build_object
    json_each json_each_text json_extract_path json_extract_path_text json_object json_object_keys
    json_populate_record json_populate_recordset json_strip_nulls json_to_record json_to_recordset json_typeof
    jsonb_array_elements jsonb_array_elements_text jsonb_array_length jsonb_build_array jsonb_build_object jsonb_concat
    jsonb_contained jsonb_contains jsonb_delete jsonb_delete_path jsonb_each jsonb_each_text jsonb_exists
    jsonb_exists_all jsonb_exists_any jsonb_extract_path jsonb_extract_path_text jsonb_insert jsonb_object
    jsonb_object_keys jsonb_path_exists jsonb_path_exists_tz jsonb_path_match jsonb_path_match_tz jsonb_path_query
    jsonb_path_query_array jsonb_path_query_array_tz jsonb_path_query_first jsonb_path_query_first_tz
    jsonb_path_query_tz jsonb_populate_record jsonb_populate_recordset jsonb_pretty jsonb_set jsonb_set_lax
    jsonb_strip_nulls jsonb_to_record jsonb_to_recordset jsonb_typeof row_to_json to_json to_jsonb

    daterange int4range int8range numrange tsrange tstzrange datemultirange int4multirange int8multirange
    nummultirange tsmultirange tstzmultirange isempty lower_inc lower_inf multirange range_merge upper_inc upper_inf

    abbrev broadcast family host hostmask inet_merge inet_same_family macaddr8_set7bit masklen netmask network
    set_masklen area box center circle diagonal diameter height isclosed isopen line lseg npoints path pclose point
    polygon popen radius slope width

    array_to_tsvector get_current_ts_config json_to_tsvector jsonb_to_tsvector numnode phraseto_tsquery plainto_tsquery
    querytree setweight strip to_tsquery to_tsvector ts_delete ts_filter ts_headline ts_rank ts_rank_cd tsquery_phrase
    tsvector_to_array websearch_to_tsquery
    xml_is_well_formed xml_is_well_formed_content xml_is_well_formed_document xmlcomment xmlexists xpath xpath_exists

    col_description current_catalog current_database current_query current_schema current_schemas current_setting
    current_user format_type has_any_column_privilege has_column_privilege has_database_privilege
    has_function_privilege has_schema_privilege has_sequence_privilege has_table_privilege has_type_privilege
    inet_client_addr inet_server_addr num_nonnulls num_nulls obj_description pg_backend_pid pg_client_encoding
    pg_collation_for pg_column_size pg_database_size pg_describe_object pg_encoding_to_char pg_get_constraintdef
    pg_get_expr pg_get_functiondef pg_get_indexdef pg_get_keywords pg_get_ruledef pg_get_triggerdef pg_get_userbyid
    pg_get_viewdef pg_has_role pg_indexes_size pg_is_in_recovery pg_notify pg_relation_size pg_size_bytes
    pg_size_pretty pg_table_is_visible pg_table_size pg_total_relation_size pg_type_is_visible pg_typeof
    row_security_active session_user shobj_description system_user to_regclass to_regcollation to_regnamespace
    to_regoper to_regoperator to_regproc to_regprocedure to_regrole to_regtype txid_current pg_current_xact_id
    hashtext hashtextextended version";
