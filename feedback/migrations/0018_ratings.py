"""Questions about replies, and what people and programs answer to them; questions stay as asked, answers as given."""

from typing import Any

import django.db.models.deletion
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models

from feedback import append_only, frozen_scales

TABLES = ["feedback_rating"]


def install(apps: Any, schema_editor: Any) -> None:
    append_only.install(schema_editor.connection, TABLES)
    frozen_scales.install(schema_editor.connection)


def remove(apps: Any, schema_editor: Any) -> None:
    frozen_scales.remove(schema_editor.connection)
    append_only.remove(schema_editor.connection, TABLES)


class Migration(migrations.Migration):
    dependencies = [
        ("feedback", "0017_imported_reviews_and_weights"),
    ]

    operations = [
        migrations.CreateModel(
            name="Scale",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("key", models.CharField(max_length=40)),
                ("version", models.PositiveIntegerField(default=1)),
                ("position", models.PositiveSmallIntegerField(help_text="Its place among the questions of its set.")),
                ("name", models.CharField(max_length=60)),
                ("question", models.CharField(max_length=300)),
                ("guidance", models.TextField(blank=True, help_text="What counts, for whoever answers.")),
                (
                    "kind",
                    models.CharField(
                        choices=[
                            ("choice", "One of several answers"),
                            ("numbers", "A number from 1"),
                            ("flags", "Whatever holds, or none of it"),
                        ],
                        max_length=7,
                    ),
                ),
                (
                    "options",
                    models.JSONField(
                        blank=True,
                        default=list,
                        help_text='[{"value": "yes", "words": "Yes"}, …], of choices and flags.',
                    ),
                ),
                ("steps", models.PositiveSmallIntegerField(blank=True, help_text="Of numbers: how many.", null=True)),
                ("low_words", models.CharField(blank=True, help_text="What 1 means.", max_length=60)),
                ("high_words", models.CharField(blank=True, help_text="What the last number means.", max_length=60)),
                (
                    "asked_after",
                    models.CharField(
                        blank=True,
                        help_text="Asked only where an earlier question got one of these values.",
                        max_length=40,
                    ),
                ),
                ("asked_values", models.JSONField(blank=True, default=list)),
                ("implied", models.CharField(blank=True, help_text="The value where it is not asked.", max_length=300)),
                (
                    "positive",
                    models.JSONField(blank=True, default=list, help_text="The values that speak for a reply."),
                ),
                (
                    "positive_votes",
                    models.PositiveSmallIntegerField(
                        blank=True, help_text="A reply is called positive where so many …", null=True
                    ),
                ),
                (
                    "positive_raters",
                    models.PositiveSmallIntegerField(blank=True, help_text="… of so many people say so.", null=True),
                ),
                ("asked_from", models.DateTimeField(default=django.utils.timezone.now)),
                ("asked_until", models.DateTimeField(blank=True, help_text="Empty: it is asked now.", null=True)),
            ],
            options={
                "ordering": ["scale_set", "position", "version"],
            },
        ),
        migrations.AddField(
            model_name="snapshot",
            name="rating_ids",
            field=models.JSONField(blank=True, default=list),
        ),
        migrations.AlterField(
            model_name="snapshot",
            name="kind",
            field=models.CharField(
                choices=[
                    ("preference", "preference"),
                    ("rules", "rules"),
                    ("demonstrations", "demonstrations"),
                    ("ratings", "ratings"),
                ],
                default="preference",
                max_length=14,
            ),
        ),
        migrations.CreateModel(
            name="Rating",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "value",
                    models.CharField(
                        help_text="Of flags those that hold, with commas between, or none.", max_length=300
                    ),
                ),
                (
                    "implied",
                    models.BooleanField(
                        default=False, help_text="It was not asked: the value follows from an earlier one."
                    ),
                ),
                ("program", models.CharField(blank=True, help_text="The program that says so.", max_length=60)),
                ("program_version", models.CharField(blank=True, max_length=60)),
                (
                    "annotator_key",
                    models.CharField(
                        help_text="u<id> of a person here; the source's own name for an imported one; program/version.",
                        max_length=130,
                    ),
                ),
                (
                    "source",
                    models.JSONField(blank=True, default=dict, help_text="What an import or a program says of it."),
                ),
                ("revision", models.PositiveIntegerField(default=1)),
                ("withdrawn", models.BooleanField(default=False)),
                (
                    "seconds",
                    models.FloatField(
                        blank=True,
                        help_text="Time the page was in view, for all questions about the reply together.",
                        null=True,
                    ),
                ),
                ("late", models.BooleanField(default=False, help_text="Sent after the lease lapsed.")),
                (
                    "counts",
                    models.BooleanField(
                        default=True, help_text="False for a late answer whose slot somebody else took."
                    ),
                ),
                ("submit_key", models.UUIDField(blank=True, null=True)),
                ("body_hash", models.CharField(blank=True, max_length=64)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                (
                    "annotator",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="ratings",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "candidate",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="ratings", to="feedback.candidate"
                    ),
                ),
                (
                    "slot",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="ratings",
                        to="feedback.slot",
                    ),
                ),
                (
                    "source_import",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="ratings",
                        to="feedback.import",
                    ),
                ),
                (
                    "scale",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="ratings", to="feedback.scale"
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="ScaleSet",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("key", models.SlugField(max_length=40)),
                ("name", models.CharField(max_length=80)),
                ("source", models.CharField(blank=True, help_text="Where its questions come from.", max_length=300)),
                (
                    "by_program",
                    models.BooleanField(
                        default=False, help_text="A program answers, such as unit tests; nobody is asked."
                    ),
                ),
                ("is_open", models.BooleanField(default=False, help_text="Annotators are asked.")),
                (
                    "raters",
                    models.PositiveSmallIntegerField(default=1, help_text="How many people rate the same reply."),
                ),
                (
                    "ready",
                    models.PositiveSmallIntegerField(
                        default=6,
                        help_text="Replies that wait to be rated, kept so by themselves. 0: only what is asked for.",
                    ),
                ),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                (
                    "project",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="scale_sets", to="feedback.project"
                    ),
                ),
            ],
            options={
                "ordering": ["pk"],
            },
        ),
        migrations.AddField(
            model_name="scale",
            name="scale_set",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT, related_name="scales", to="feedback.scaleset"
            ),
        ),
        migrations.AddField(
            model_name="workitem",
            name="scale_set",
            field=models.ForeignKey(
                blank=True,
                help_text="The questions by which the reply is rated.",
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="work_items",
                to="feedback.scaleset",
            ),
        ),
        migrations.AddConstraint(
            model_name="workitem",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("candidate__isnull", False), ("kind", "rate"), ("scale_set__isnull", False)),
                    models.Q(models.Q(("kind", "rate"), _negated=True), ("scale_set__isnull", True)),
                    _connector="OR",
                ),
                name="to_rate_is_about_a_reply_and_a_scale_set",
            ),
        ),
        migrations.AddConstraint(
            model_name="workitem",
            constraint=models.UniqueConstraint(
                condition=models.Q(("scale_set__isnull", False)),
                fields=("candidate", "kind", "scale_set"),
                name="one_work_item_per_reply_and_scale_set",
            ),
        ),
        migrations.AddIndex(
            model_name="rating",
            index=models.Index(fields=["scale", "value"], name="rating_of_scale"),
        ),
        migrations.AddConstraint(
            model_name="rating",
            constraint=models.UniqueConstraint(
                fields=("candidate", "scale", "annotator_key", "revision"), name="one_rating_per_revision"
            ),
        ),
        migrations.AddConstraint(
            model_name="rating",
            constraint=models.UniqueConstraint(fields=("submit_key", "scale"), name="one_rating_per_submit_and_scale"),
        ),
        migrations.AddConstraint(
            model_name="rating",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(
                        ("annotator__isnull", False),
                        ("program", ""),
                        ("slot__isnull", False),
                        ("source_import__isnull", True),
                    ),
                    models.Q(
                        ("annotator__isnull", True),
                        ("program", ""),
                        ("slot__isnull", True),
                        ("source_import__isnull", False),
                    ),
                    models.Q(
                        ("annotator__isnull", True),
                        ("slot__isnull", True),
                        ("source_import__isnull", True),
                        models.Q(("program", ""), _negated=True),
                    ),
                    _connector="OR",
                ),
                name="a_rating_comes_from_a_slot_an_import_or_a_program",
            ),
        ),
        migrations.AddConstraint(
            model_name="rating",
            constraint=models.CheckConstraint(
                condition=models.Q(("value", ""), _negated=True), name="a_rating_says_something"
            ),
        ),
        migrations.AddConstraint(
            model_name="rating",
            constraint=models.CheckConstraint(
                condition=models.Q(("revision__gte", 1)), name="rating_revisions_start_at_one"
            ),
        ),
        migrations.AddConstraint(
            model_name="rating",
            constraint=models.CheckConstraint(
                condition=models.Q(("seconds__isnull", True), ("seconds__gte", 0), _connector="OR"),
                name="rating_seconds_are_not_negative",
            ),
        ),
        migrations.AddConstraint(
            model_name="rating",
            constraint=models.CheckConstraint(
                condition=models.Q(("late", True), ("counts", True), _connector="OR"),
                name="only_late_ratings_may_not_count",
            ),
        ),
        migrations.AddConstraint(
            model_name="scaleset",
            constraint=models.UniqueConstraint(fields=("project", "key"), name="one_scale_set_per_key"),
        ),
        migrations.AddConstraint(
            model_name="scaleset",
            constraint=models.CheckConstraint(
                condition=models.Q(("raters__gte", 1), ("raters__lte", 20)), name="one_to_twenty_raters"
            ),
        ),
        migrations.AddConstraint(
            model_name="scaleset",
            constraint=models.CheckConstraint(
                condition=models.Q(("by_program", False), ("is_open", False), _connector="OR"),
                name="nobody_is_asked_what_a_program_answers",
            ),
        ),
        migrations.AddConstraint(
            model_name="scale",
            constraint=models.UniqueConstraint(fields=("scale_set", "key", "version"), name="one_scale_per_version"),
        ),
        migrations.AddConstraint(
            model_name="scale",
            constraint=models.UniqueConstraint(
                condition=models.Q(("asked_until__isnull", True)),
                fields=("scale_set", "key"),
                name="one_version_of_a_scale_is_asked",
            ),
        ),
        migrations.AddConstraint(
            model_name="scale",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("kind", "numbers"), ("steps__gte", 2), ("steps__isnull", False), ("steps__lte", 9)),
                    models.Q(("kind__in", ["choice", "flags"]), ("steps__isnull", True)),
                    _connector="OR",
                ),
                name="numbers_have_two_to_nine_steps",
            ),
        ),
        migrations.AddConstraint(
            model_name="scale",
            constraint=models.CheckConstraint(
                condition=models.Q(("version__gte", 1)), name="scale_versions_start_at_one"
            ),
        ),
        migrations.AddConstraint(
            model_name="scale",
            constraint=models.CheckConstraint(
                condition=models.Q(("question", ""), _negated=True), name="a_scale_asks_something"
            ),
        ),
        migrations.AddConstraint(
            model_name="scale",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("asked_after", ""), ("implied", "")),
                    models.Q(models.Q(("asked_after", ""), _negated=True), models.Q(("implied", ""), _negated=True)),
                    _connector="OR",
                ),
                name="what_may_not_be_asked_implies_a_value",
            ),
        ),
        migrations.AddConstraint(
            model_name="scale",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("positive_raters__isnull", True), ("positive_votes__isnull", True)),
                    models.Q(
                        ("positive_raters__gte", models.F("positive_votes")),
                        ("positive_raters__isnull", False),
                        ("positive_votes__gte", 1),
                        ("positive_votes__isnull", False),
                    ),
                    _connector="OR",
                ),
                name="positive_votes_are_of_raters",
            ),
        ),
        migrations.AddConstraint(
            model_name="scale",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("asked_until__isnull", True), ("asked_until__gte", models.F("asked_from")), _connector="OR"
                ),
                name="a_scale_is_asked_before_it_is_not",
            ),
        ),
        migrations.RunPython(install, remove),
    ]
