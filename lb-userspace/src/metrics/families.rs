//! Families of metrics, and their text.

use anyhow::Context;
use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};
use prometheus::{Encoder, TextEncoder};

/// Families, in the order in which they were begun.
#[derive(Debug, Default)]
pub(super) struct Families(Vec<MetricFamily>);

impl Families {
    /// Begins a family of values that only ever rise, until the daemon or the backend begins anew. `name`
    /// ends in `_total`.
    pub(super) fn counter(&mut self, name: &str, help: &str) -> Values<'_> {
        self.begin(name, help, MetricType::COUNTER)
    }

    /// Begins a family of values that rise and fall. `name` ends in the unit, if there is one.
    pub(super) fn gauge(&mut self, name: &str, help: &str) -> Values<'_> {
        self.begin(name, help, MetricType::GAUGE)
    }

    /// Adds a family of one histogram: for each upper bound how many values were no greater, all of them, and
    /// their sum.
    pub(super) fn histogram(
        &mut self,
        name: &str,
        help: &str,
        cumulative: impl Iterator<Item = (f64, u64)>,
        count: u64,
        sum: f64,
    ) {
        let buckets = cumulative.map(|(bound, count)| {
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(bound);
            bucket.set_cumulative_count(count);
            bucket
        });
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_count(count);
        histogram.set_sample_sum(sum);
        let mut metric = Metric::default();
        metric.set_histogram(histogram);
        let values = self.begin(name, help, MetricType::HISTOGRAM);
        values.family.mut_metric().push(metric);
    }

    fn begin(&mut self, name: &str, help: &str, kind: MetricType) -> Values<'_> {
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        let last = self.0.len();
        self.0.push(family);
        Values {
            family: &mut self.0[last],
            kind,
        }
    }

    /// All of them in Prometheus' text format; a family without values is left out.
    ///
    /// # Errors
    /// A name that is none.
    pub(super) fn encode(&self) -> anyhow::Result<String> {
        let families: Vec<_> = self
            .0
            .iter()
            .filter(|family| !family.get_metric().is_empty())
            .cloned()
            .collect();
        let mut text = Vec::new();
        TextEncoder::new().encode(&families, &mut text)?;
        String::from_utf8(text).context("metrics that are no UTF-8")
    }
}

/// Where the values of a family go.
pub(super) struct Values<'f> {
    family: &'f mut MetricFamily,
    kind: MetricType,
}

impl Values<'_> {
    /// Adds a value.
    pub(super) fn put(&mut self, labels: &[(&str, &str)], value: f64) {
        let labels = labels.iter().map(|(name, text)| {
            let mut label = LabelPair::default();
            label.set_name((*name).to_owned());
            label.set_value((*text).to_owned());
            label
        });
        let mut metric = Metric::from_label(labels.collect());
        if self.kind == MetricType::COUNTER {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        } else {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        self.family.mut_metric().push(metric);
    }

    /// Adds a count: exact up to 2^53.
    pub(super) fn count(&mut self, labels: &[(&str, &str)], count: u64) {
        self.put(labels, count as f64);
    }
}
