/* From the state to the caller's variables. An absent key answers NOT_SUPPORTED. */
#include "fake.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { LONGEST_KEY = 128 };

#define KEY(name, format)                                                                         \
    char name[LONGEST_KEY];                                                                       \
    va_list arguments_;                                                                           \
    va_start(arguments_, format);                                                                 \
    vsnprintf(name, sizeof name, format, arguments_);                                             \
    va_end(arguments_)

unsigned long long as_u64(long double number)
{
    return number < 0 ? (unsigned long long)(long long)number : (unsigned long long)number;
}

static bool number_of(const struct Call *call, const char *name, long double *number)
{
    return state_number(call->state, call->gpu, name, call->seconds, number);
}

bool read_number(const struct Call *call, long double *number, const char *format, ...)
{
    KEY(name, format);
    return number_of(call, name, number);
}

long double number_or(const struct Call *call, long double otherwise, const char *format, ...)
{
    long double number;
    KEY(name, format);
    return number_of(call, name, &number) ? number : otherwise;
}

const char *read_text(const struct Call *call, const char *format, ...)
{
    KEY(name, format);
    return state_text(call->state, call->gpu, name);
}

int answer_u64(const struct Call *call, unsigned long long *out, const char *format, ...)
{
    long double number;
    KEY(name, format);
    if (!out)
        return INVALID_ARGUMENT;
    if (!number_of(call, name, &number))
        return NOT_SUPPORTED;
    *out = as_u64(number);
    return SUCCESS;
}

int answer_uint(const struct Call *call, unsigned *out, const char *format, ...)
{
    long double number;
    KEY(name, format);
    if (!out)
        return INVALID_ARGUMENT;
    if (!number_of(call, name, &number))
        return NOT_SUPPORTED;
    *out = (unsigned)as_u64(number);
    return SUCCESS;
}

int answer_int(const struct Call *call, int *out, const char *format, ...)
{
    long double number;
    KEY(name, format);
    if (!out)
        return INVALID_ARGUMENT;
    if (!number_of(call, name, &number))
        return NOT_SUPPORTED;
    *out = (int)number;
    return SUCCESS;
}

int copy_text(const char *text, char *out, unsigned size)
{
    if (!out)
        return INVALID_ARGUMENT;
    if (strlen(text) + 1 > size)
        return INSUFFICIENT_SIZE;
    strcpy(out, text);
    return SUCCESS;
}

int answer_text(const struct Call *call, char *out, unsigned size, const char *format, ...)
{
    KEY(name, format);
    const char *text = state_text(call->state, call->gpu, name);
    return text ? copy_text(text, out, size) : NOT_SUPPORTED;
}
