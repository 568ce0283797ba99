//! What definitions and replicas take of a tenant's room, counted by triggers: nothing that writes or deletes them can
//! forget to count.
//!
//! Each costs 160 bytes besides what it holds, as a row does ([`super::weight::ROW_OVERHEAD`]).

/// What counts, as part of a layout.
macro_rules! counting {
    () => {
        "
    CREATE INDEX definition_undeclared ON definition (tenant, tbl) WHERE declarers = 0;
    CREATE INDEX rules_left ON table_rules (tenant) WHERE left_from IS NOT NULL;
    CREATE TRIGGER replica_comes AFTER INSERT ON replica BEGIN
        UPDATE tenant SET replicas = replicas + 1, kept_bytes = kept_bytes + 160 + octet_length(new.agent)
            + coalesce(length(new.refused), 0) + coalesce(length(new.rejected), 0) WHERE id = new.tenant;
    END;
    CREATE TRIGGER replica_goes AFTER DELETE ON replica BEGIN
        UPDATE tenant SET replicas = replicas - 1, kept_bytes = kept_bytes - 160 - octet_length(old.agent)
            - coalesce(length(old.refused), 0) - coalesce(length(old.rejected), 0) WHERE id = old.tenant;
    END;
    CREATE TRIGGER replica_changes AFTER UPDATE OF agent, refused, rejected ON replica
    WHEN octet_length(new.agent) + coalesce(length(new.refused), 0) + coalesce(length(new.rejected), 0)
        <> octet_length(old.agent) + coalesce(length(old.refused), 0) + coalesce(length(old.rejected), 0) BEGIN
        UPDATE tenant SET kept_bytes = kept_bytes + octet_length(new.agent) - octet_length(old.agent)
            + coalesce(length(new.refused), 0) - coalesce(length(old.refused), 0)
            + coalesce(length(new.rejected), 0) - coalesce(length(old.rejected), 0) WHERE id = new.tenant;
    END;
    CREATE TRIGGER definition_comes AFTER INSERT ON definition BEGIN
        UPDATE tenant SET kept_bytes = kept_bytes + 160 + octet_length(new.text) + octet_length(new.agent)
            + coalesce(octet_length(new.why), 0) WHERE id = new.tenant;
    END;
    CREATE TRIGGER definition_goes AFTER DELETE ON definition BEGIN
        UPDATE tenant SET kept_bytes = kept_bytes - 160 - octet_length(old.text) - octet_length(old.agent)
            - coalesce(octet_length(old.why), 0) WHERE id = old.tenant;
    END;
    CREATE TRIGGER definition_changes AFTER UPDATE OF why ON definition
    WHEN coalesce(octet_length(new.why), 0) <> coalesce(octet_length(old.why), 0) BEGIN
        UPDATE tenant SET kept_bytes = kept_bytes + coalesce(octet_length(new.why), 0) - coalesce(octet_length(old.why), 0)
            WHERE id = new.tenant;
    END;
    CREATE TRIGGER declaration_comes AFTER INSERT ON declaration BEGIN
        UPDATE tenant SET kept_bytes = kept_bytes + 160 + length(new.definitions) WHERE id = new.tenant;
    END;
    CREATE TRIGGER declaration_goes AFTER DELETE ON declaration BEGIN
        UPDATE tenant SET kept_bytes = kept_bytes - 160 - length(old.definitions) WHERE id = old.tenant;
    END;
    CREATE TRIGGER declaration_changes AFTER UPDATE OF definitions ON declaration BEGIN
        UPDATE tenant SET kept_bytes = kept_bytes + length(new.definitions) - length(old.definitions)
            WHERE id = new.tenant;
    END;
    CREATE TRIGGER table_comes AFTER INSERT ON table_schema BEGIN
        UPDATE tenant SET kept_bytes = kept_bytes + 160 + length(new.columns) + octet_length(new.ddl)
            + length(new.indexes) + length(new.agreed) WHERE id = new.tenant;
    END;
    CREATE TRIGGER table_goes AFTER DELETE ON table_schema BEGIN
        UPDATE tenant SET kept_bytes = kept_bytes - 160 - length(old.columns) - octet_length(old.ddl)
            - length(old.indexes) - length(old.agreed) WHERE id = old.tenant;
    END;
    CREATE TRIGGER table_changes AFTER UPDATE ON table_schema BEGIN
        UPDATE tenant SET kept_bytes = kept_bytes + length(new.columns) - length(old.columns)
            + octet_length(new.ddl) - octet_length(old.ddl) + length(new.indexes) - length(old.indexes)
            + length(new.agreed) - length(old.agreed) WHERE id = new.tenant;
    END;
"
    };
}
pub(super) use counting;

/// The same, for a store that is made.
pub const COUNTING: &str = counting!();
