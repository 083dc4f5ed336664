#include "amalgam/cli/opt.h"

#include "amalgam/base/str.h"

static const struct opt *opt_find_long(const struct opt *table, const char *name, size_t n)
{
	for (; table->name; table++)
		if (strlen(table->name) == n && strncmp(table->name, name, n) == 0)
			return table;
	return NULL;
}

static const struct opt *opt_find_letter(const struct opt *table, char letter)
{
	for (; table->name; table++)
		if (table->letter == letter)
			return table;
	return NULL;
}

static int opt_set(const struct opt *o, char *value, struct err *e)
{
	struct opt_list *list = o->value;

	switch (o->kind) {
	case OPT_FLAG:
		*(bool *)o->value = true;
		break;
	case OPT_STRING:
		*(const char **)o->value = value;
		break;
	case OPT_NUMBER:
		if (str_u64(value, o->min, o->max, o->value) < 0)
			return err_set(e, -EINVAL, "--%s %s: must be a number from %llu to %llu", o->name,
				       value, (unsigned long long)o->min, (unsigned long long)o->max);
		break;
	case OPT_LIST:
		if (list->n == OPT_LIST_MAX)
			return err_set(e, -EINVAL, "--%s: given more than %d times", o->name,
				       OPT_LIST_MAX);
		list->item[list->n++] = value;
		list->item[list->n] = NULL;
		break;
	}
	return 0;
}

/* One word that starts with a dash; *i moves past the value if that is a word of its own. */
static int opt_word(const struct opt *table, int argc, char **argv, int *i, struct err *e)
{
	char *word = argv[*i], *eq = NULL;
	const struct opt *o;

	if (word[1] == '-') {
		eq = strchr(word, '=');
		o = opt_find_long(table, word + 2, eq ? (size_t)(eq - word - 2) : strlen(word + 2));
	} else {
		o = word[2] ? NULL : opt_find_letter(table, word[1]);
	}
	if (!o)
		return err_set(e, -EINVAL, "unknown option %s; see --help", word);
	if (o->kind == OPT_FLAG)
		return eq ? err_set(e, -EINVAL, "--%s takes no value", o->name) : opt_set(o, NULL, e);
	if (eq)
		return opt_set(o, eq + 1, e);
	if (*i + 1 >= argc)
		return err_set(e, -EINVAL, "%s needs a value: %s", word, o->arg);
	return opt_set(o, argv[++*i], e);
}

int opt_parse(const struct opt *table, int argc, char **argv, struct err *e)
{
	int i;

	for (i = 1; i < argc; i++) {
		int r;
		if (strcmp(argv[i], "--") == 0)
			return i + 1;
		if (argv[i][0] != '-' || argv[i][1] == '\0')
			return i;
		if ((r = opt_word(table, argc, argv, &i, e)) < 0)
			return r;
	}
	return i;
}

void opt_print(const struct opt *table, FILE *to)
{
	for (; table->name; table++) {
		char left[48];
		snprintf(left, sizeof left, "%c%c%c --%s %s", table->letter ? '-' : ' ',
			 table->letter ? table->letter : ' ', table->letter ? ',' : ' ', table->name,
			 table->arg ? table->arg : "");
		fprintf(to, "  %-26s %s\n", left, table->help);
	}
}
