//! One pull reads one point of the tenant's order (invariant I14).
