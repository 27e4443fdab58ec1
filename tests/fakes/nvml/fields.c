/* Field values: many readings in one call, each with its own type and return code.
 *
 * A field is looked up as fi.ID.SCOPE, then (scope 0) fi.ID, then (scope is a link) fi.ID.*, then
 * under the key that the call for the same quantity uses, so that both agree.
 */
#include "fake.h"

enum Type { DOUBLE, UINT, ULONG, U64, I64, INT, USHORT };

#ifdef OLD_DRIVER
enum { LAST_FIELD = 162 };
#else
enum { LAST_FIELD = 281 };
#endif

union Value {
    double d;
    unsigned ui;
    unsigned long ul;
    unsigned long long ull;
    long long sll;
    int si;
    unsigned short us;
};

struct Field {
    unsigned id, scope;
    long long timestamp, latency_us;
    unsigned type;
    int answer;
    union Value value;
};

/* Fields that other calls answer, too. */
static const struct {
    unsigned id, scope;
    const char *key;
} SHARED[] = {
    {1, 0, "ecc"}, {2, 0, "ecc_pending"},
    {3, 0, "ecc.0.0"}, {4, 0, "ecc.1.0"}, {5, 0, "ecc.0.1"}, {6, 0, "ecc.1.1"},
    {29, 0, "retired.sbe"}, {30, 0, "retired.dbe"}, {31, 0, "retired.pending"},
    {82, 0, "temp_memory"}, {83, 0, "energy_mj"}, {191, 0, "energy_mj"},
    {90, 0, "nvlink_speed_mbps"}, {91, 0, "nvlink_count"}, {94, 0, "pcie_replay"},
    {142, 0, "remap.cor"}, {143, 0, "remap.unc"}, {144, 0, "remap.pending"},
    {145, 0, "remap.failure"},
    {185, 0, "power_average_mw"}, {186, 0, "power_instant_mw"},
    {187, 0, "plimit_min_mw"}, {188, 0, "plimit_max_mw"}, {189, 0, "plimit_default_mw"},
    {190, 0, "plimit_enforced_mw"}, {192, 0, "plimit_requested_mw"},
};

static bool between(unsigned id, unsigned first, unsigned last)
{
    return id >= first && id <= last;
}

/* The type that the driver gives a field. */
static enum Type type_of(unsigned id)
{
    if (between(id, 193, 196))
        return INT;
    if (between(id, 3, 28) || between(id, 32, 81) || id == 83 || between(id, 96, 131) ||
        between(id, 138, 141) || between(id, 148, 163) || id == 191 || id == 197 || id == 198 ||
        between(id, 201, 222) || between(id, 235, 250) || between(id, 269, 271))
        return U64;
    return UINT;
}

/* Fields that a GPU does not give while it is divided: row remapping and NVLink. */
static bool hidden_by_mig(unsigned id)
{
    return between(id, 142, 145) || between(id, 32, 73) || between(id, 84, 91) ||
           between(id, 96, 141) || between(id, 146, 168) || between(id, 201, 222);
}

/* A key of the state in the making; formatted by hand, for there are many on every tick. */
struct Key {
    char text[64];
    unsigned length;
};

static void add_text(struct Key *key, const char *text)
{
    while (*text)
        key->text[key->length++] = *text++;
    key->text[key->length] = 0;
}

static void add_number(struct Key *key, unsigned number)
{
    char digits[11] = "", *first = digits + sizeof digits - 1;
    do
        *--first = (char)('0' + number % 10);
    while (number /= 10);
    add_text(key, first);
}

static bool find_value(const struct Call *call, const struct Field *field, const char *end,
                       long double *number)
{
    struct Key of_id = {"fi.", 3}, key;
    add_number(&of_id, field->id);
    key = of_id;
    add_text(&key, ".");
    add_number(&key, field->scope);
    add_text(&key, end);
    if (state_number(call->state, call->gpu, key.text, call->seconds, number))
        return true;
    key = of_id;
    add_text(&key, end);
    if (field->scope == 0 &&
        state_number(call->state, call->gpu, key.text, call->seconds, number))
        return true;
    key = of_id;
    add_text(&key, ".*");
    add_text(&key, end);
    return state_number(call->state, call->gpu, key.text, call->seconds, number) &&
           field->scope < (unsigned)number_or(call, 0, "nvlink_count");
}

static bool find_shared(const struct Call *call, const struct Field *field, long double *number)
{
    for (unsigned i = 0; i < sizeof SHARED / sizeof *SHARED; i++)
        if (SHARED[i].id == field->id && SHARED[i].scope == field->scope)
            return state_number(call->state, call->gpu, SHARED[i].key, call->seconds, number);
    return false;
}

static void store(struct Field *field, long double number)
{
    switch (field->type) {
    case DOUBLE: field->value.d = (double)number; break;
    case UINT: field->value.ui = (unsigned)as_u64(number); break;
    case ULONG: field->value.ul = (unsigned long)as_u64(number); break;
    case I64: field->value.sll = (long long)number; break;
    case INT: field->value.si = (int)number; break;
    case USHORT: field->value.us = (unsigned short)as_u64(number); break;
    default: field->value.ull = as_u64(number); break;
    }
}

static int answer_field(const struct Call *call, struct Field *field)
{
    long double number;
    if (field->id == 0 || field->id > LAST_FIELD)
        return INVALID_ARGUMENT;
    if (call->slot >= 0 || (hidden_by_mig(field->id) && mig_enabled(call)))
        return NOT_SUPPORTED;
    bool special = state_has_field_rules(call->state);
    if (special && find_value(call, field, ".ret", &number))
        return (int)number;
    field->type = special && find_value(call, field, ".type", &number) ? (unsigned)number
                                                                       : type_of(field->id);
    if (!find_value(call, field, "", &number) && !find_shared(call, field, &number))
        return NOT_SUPPORTED;
    store(field, number);
    return SUCCESS;
}

EXPORT int nvmlDeviceGetFieldValues(Handle device, int count, struct Field *fields)
{
    DEVICE_CALL(device);
    if (!fields || count < 1)
        return INVALID_ARGUMENT;
    long long now = (long long)call_microseconds(&call);
    for (int i = 0; i < count; i++) {
        fields[i].timestamp = now;
        fields[i].latency_us = 0;
        fields[i].value.ull = 0;
        fields[i].answer = answer_field(&call, &fields[i]);
    }
    return SUCCESS;
}
